/*
 * confhelp.c - prints the table of tunables for people: `hvaccel --help` and libhvaccel(7).
 *
 * Owns no state; callers: tools and the build's confdoc program. It uses stdio, so the preloaded library never calls it.
 */
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "base/conf.h"

#define PREFIX "HVACCEL_"

struct row {
	const char *name, *def, *text, *unit, *list;
	int64_t idef, min, max;
	enum { ROW_INT, ROW_STR, ROW_ENUM } kind;
};

static const struct row rows[] = {
#define HV_INT(NAME, field, def, min, max, unit, text) { #NAME, "", (text), (unit), "", (def), (min), (max), ROW_INT },
#define HV_STR(NAME, field, def, allowed, text) { #NAME, (def), (text), "", (allowed), 0, 0, 0, ROW_STR },
#define HV_ENUM(NAME, field, def, list, text) { #NAME, "", (text), "", (list), (def), 0, 0, ROW_ENUM },
#include "base/tunables.def"
#undef HV_INT
#undef HV_STR
#undef HV_ENUM
};

static void print_default(FILE *f, const struct row *r)
{
	const char *p = r->list;
	switch (r->kind) {
	case ROW_INT:
		fprintf(f, "%" PRId64, r->idef);
		return;
	case ROW_STR:
		fputs(r->def[0] != '\0' ? r->def : "empty", f);
		return;
	case ROW_ENUM:
		for (int64_t i = r->idef; i > 0; i--)
			p += strcspn(p, "|") + 1;
		fprintf(f, "%.*s", (int)strcspn(p, "|"), p);
		return;
	}
}

static void print_range(FILE *f, const struct row *r)
{
	if (r->kind == ROW_INT)
		fprintf(f, "%" PRId64 "..%" PRId64 " %s", r->min, r->max, r->unit);
	else
		fputs(r->list, f);
}

void hv_conf_print_help(FILE *f)
{
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		fprintf(f, "  " PREFIX "%s=", rows[i].name);
		print_range(f, &rows[i]);
		fputs(" (default ", f);
		print_default(f, &rows[i]);
		fprintf(f, ")\n      %s\n", rows[i].text);
	}
}

/* Text from the table may hold characters that roff would read: minus signs become \-, backslashes \e. */
static void roff(FILE *f, const char *s)
{
	for (; *s != '\0'; s++) {
		if (*s == '-')
			fputs("\\-", f);
		else if (*s == '\\')
			fputs("\\e", f);
		else
			fputc(*s, f);
	}
}

void hv_conf_print_man(FILE *f)
{
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		const struct row *r = &rows[i];
		fprintf(f, ".TP\n.B " PREFIX "%s\n", r->name);
		if (r->text[0] == '.' || r->text[0] == '\'')
			fputs("\\&", f);
		roff(f, r->text);
		fputs("\nAllowed: ", f);
		if (r->kind == ROW_INT) {
			fprintf(f, "%" PRId64 "..%" PRId64 " ", r->min, r->max);
			roff(f, r->unit);
		} else {
			roff(f, r->list);
		}
		fputs(". Default: ", f);
		if (r->kind == ROW_STR)
			roff(f, r->def[0] != '\0' ? r->def : "empty");
		else
			print_default(f, r);
		fputs(".\n", f);
	}
}
