/* libattn: attention mechanisms, forward and backward, for the CPU. */
#ifndef ATTN_ATTN_H
#define ATTN_ATTN_H

#include "attn/context.h"
#include "attn/dtype.h"
#include "attn/flex.h"
#include "attn/layer.h"
#include "attn/status.h"
#include "attn/work.h"

#endif
