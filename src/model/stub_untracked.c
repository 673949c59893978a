extern int attn_stub_model; int attn_stub_model;
