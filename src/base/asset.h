/* A file carried inside the program; cmake/embed.cmake makes them. */
#ifndef BASE_ASSET_H
#define BASE_ASSET_H

#include <stddef.h>

typedef struct attn_asset {
    const char *bytes;
    size_t size_bytes;
} attn_asset;

#endif
