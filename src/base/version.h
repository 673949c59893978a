/* Which build this is. */
#ifndef BASE_VERSION_H
#define BASE_VERSION_H

/* "0.1.0 (4c160ef)": the version, and the git commit with "-dirty" when the tree had changes;
 * "unknown" for sources without git. version.c is generated at build time. */
const char *attn_version_text(void);

#endif
