/*
 * conf.h - tunables: one table (tunables.def), read once from the environment.
 *
 * hv_conf_load() is called by the preload constructor, before threads; afterwards hv_conf is read-only.
 */
#ifndef HV_CONF_H
#define HV_CONF_H

#include <stdint.h>
#include <stdio.h>

struct hv_conf {
#define HV_INT(NAME, field, def, min, max, unit, text) int64_t field;
#define HV_STR(NAME, field, def, allowed, text) const char *field;
#define HV_ENUM(NAME, field, def, list, text) int field;
#include "base/tunables.def"
#undef HV_INT
#undef HV_STR
#undef HV_ENUM
	int64_t promote_calls; /* derived from promote: -1 never, 0 always, else N */
};
extern struct hv_conf hv_conf;

/* envp: the process's environment. Invalid values: one warning line each through hv_log(), the default is used. Unknown HVACCEL_* names are warned about too. */
void hv_conf_load(char **envp);
void hv_conf_print_help(FILE *f);    /* plain text table, for --help */
void hv_conf_print_man(FILE *f);     /* the ENVIRONMENT section of libhvaccel(7), roff */

#endif
