#include "check.h"
void check_collect_golden(check_list *list)
{
    (void)list;
}
