/* Figures made with gnuplot, when it is there. */
#ifndef CLI_GNUPLOT_H
#define CLI_GNUPLOT_H

#include "report/figures.h"

/* Runs gnuplot on NAME.gp of each figure, inside the folder, and checks that NAME.pdf and NAME.svg
 * are whole. Without gnuplot *is_there becomes false, and nothing is done. ATTN_EIO: gnuplot
 * failed; the text holds what it complained of. */
ATTN_MUST_CHECK attn_status cli_gnuplot(const char *folder, const attn_figures *figures,
                                        bool *is_there, attn_error *error);

#endif
