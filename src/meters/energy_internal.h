/* Inside the energy meter: its state, shared by energy.c, energy_probe.c, energy_figures.c. */
#ifndef METERS_ENERGY_INTERNAL_H
#define METERS_ENERGY_INTERNAL_H

#include "meters/energy.h"

#include <pthread.h>

/* What the meter knows of one channel. */
typedef struct attn_energy_account {
    attn_energy_source *source;
    size_t channel; /* within the source */
    bool has_last;
    uint64_t last_count, last_ns;
    uint64_t period_ns; /* between two samples of the sampler's thread */
    attn_energy_reading now;
} attn_energy_account;

enum { ATTN_ENERGY_TRACE_MOST = 512 };

/* Joules of each domain since the meter opened, over the channels that are counted. */
typedef struct attn_energy_moment {
    uint64_t time_ns;
    double energy_j[ATTN_ENERGY_DOMAINS];
} attn_energy_moment;

struct attn_energy_meter {
    attn_energy_source *sources[ATTN_ENERGY_SOURCES_MAX];
    size_t n_sources;
    attn_energy_account accounts[ATTN_ENERGY_CHANNELS_MAX];
    size_t n_accounts;
    uint64_t (*now_ns)(void);
    double period_s;
    uint64_t busy_ns;          /* spent in reading */
    attn_energy_moment *trace; /* NULL: nothing is kept */
    size_t n_trace;
    uint64_t trace_ns;    /* between two moments */
    pthread_mutex_t lock; /* accounts, is_stopping */
    pthread_cond_t wake;
    pthread_t thread;
    bool is_running, is_stopping;
};

/* Its update period: as probed, else as stated, else no shorter than the probe looked. */
double attn_energy_update_s(const attn_energy_channel *channel);

/* A register whose range is unknown is taken for the smallest that exists: 32 bits of 15.26 uJ. */
double attn_energy_range_j(const attn_energy_channel *channel);

/* Whether both channels are of one graphics board, however their sources write its address. */
bool attn_energy_is_one_board(const attn_energy_channel *one, const attn_energy_channel *other);

/* Keeps this moment when its time has come. */
void attn_energy_trace_add(attn_energy_meter *meter);

/* Fills update_s, read_cost_s and mirror_of of the readable channels of `source`, looking at
 * each for at most `probe_s`. */
void attn_energy_probe(attn_energy_source *source, double probe_s, uint64_t (*now_ns)(void));

#endif
