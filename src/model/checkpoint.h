/* Checkpoints as safetensors files with the names and layout of Hugging Face's GPT-2, so that
 * its files load here and ours load there:
 *
 *     wte.weight wpe.weight ln_f.{weight,bias}, and for each block N
 *     h.N.ln_1 h.N.ln_2 {weight,bias}, h.N.mlp.{c_fc,c_proj} and h.N.attn.{c_attn,c_proj}
 *     with weights [in][out]; c_attn holds query, key and value next to each other
 *
 * An attention layer whose tensors are not exactly wq, wk, wv and wo with their biases is stored
 * as h.N.attn.<its own names> in its own layout, block by block where they differ. The metadata
 * holds the configuration. */
#ifndef MODEL_CHECKPOINT_H
#define MODEL_CHECKPOINT_H

#include "model/model.h"

/* Writes float32. The file is there whole or not at all. */
ATTN_MUST_CHECK attn_status attn_checkpoint_save(const attn_model *model, const char *path,
                                                 attn_error *error);

/* Bytes of the tensors that save writes, without the header. */
size_t attn_checkpoint_bytes(const attn_model *model);

/* Fills the parameters from the file at `path`: float32, float64, float16 or bfloat16, names
 * with or without the prefix "transformer.". The mechanism may be another than the one stored,
 * as long as its tensors are the same. The masks of old files and a head equal to wte are passed
 * over; a tensor too many, one too few, one of another shape or another number of heads is an
 * error and leaves the model as it was.
 *
 * ATTN_ENOTFOUND (no file or no tensor), ATTN_ESHAPE, ATTN_EFORMAT, ATTN_EIO, ATTN_EMEMORY. */
ATTN_MUST_CHECK attn_status attn_checkpoint_load(attn_model *model, const char *path,
                                                 attn_error *error);

/* ---- in two steps, to make the model that the file holds --------------------------------- */

/* An open checkpoint. */
typedef struct attn_checkpoint attn_checkpoint;

/* ATTN_ENOTFOUND, ATTN_EIO, ATTN_EMEMORY; ATTN_EFORMAT for a file that is no model. */
ATTN_MUST_CHECK attn_status attn_checkpoint_open(attn_checkpoint **out, const char *path,
                                                 attn_error *error);
void attn_checkpoint_close(attn_checkpoint *checkpoint); /* NULL is fine */

/* What the model was. A file without our metadata is a GPT-2: sizes from its tensors, heads of
 * 64, causal softmax attention. Texts live as long as the checkpoint. */
const attn_model_config *attn_checkpoint_config(const attn_checkpoint *checkpoint);

/* As attn_checkpoint_load(). */
ATTN_MUST_CHECK attn_status attn_checkpoint_read(const attn_checkpoint *checkpoint,
                                                 attn_model *model, attn_error *error);

#endif
