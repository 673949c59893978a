#include "check.h"
void check_collect_selftest(check_list *list)
{
    (void)list;
}
