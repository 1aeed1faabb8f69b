/*
 * conf.c - reads the tunables of tunables.def from the environment, once.
 *
 * Owns hv_conf and the copies of the string values. Caller: the preload constructor, before there are threads; no lock. No allocation, no stdio: malloc may
 * itself be a preloaded library that isn't ready. String values are copied because programs that set their title overwrite the environment's memory.
 */
#include "base/conf.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/auxv.h>

#include "base/log.h"

#define PREFIX "HVACCEL_"
#define PREFIX_LEN (sizeof PREFIX - 1)
#define NAME_MAX_OCTETS 32
#define PROMOTE_MAX 1000000

struct hv_conf hv_conf = {
#define HV_INT(NAME, field, def, min, max, unit, text) .field = (def),
#define HV_STR(NAME, field, def, allowed, text) .field = (def),
#define HV_ENUM(NAME, field, def, list, text) .field = (def),
#include "base/tunables.def"
#undef HV_INT
#undef HV_STR
#undef HV_ENUM
	.promote_calls = 8, /* hv_conf_load() derives it anew */
};

enum kind { KIND_INT, KIND_STR, KIND_ENUM };

struct tunable {
	const char *name; /* without the prefix */
	enum kind kind;
	size_t offset;    /* in struct hv_conf */
	const char *list; /* the enum's values, or the allowed strings in words */
	const char *str_def;
	int64_t def, min, max;
	const char *unit;
};

static const struct tunable table[] = {
#define HV_INT(NAME, field, def, min, max, unit, text) { #NAME, KIND_INT, offsetof(struct hv_conf, field), "", "", (def), (min), (max), (unit) },
#define HV_STR(NAME, field, def, allowed, text) { #NAME, KIND_STR, offsetof(struct hv_conf, field), (allowed), (def), 0, 0, 0, "" },
#define HV_ENUM(NAME, field, def, list, text) { #NAME, KIND_ENUM, offsetof(struct hv_conf, field), (list), "", (def), 0, 0, "" },
#include "base/tunables.def"
#undef HV_INT
#undef HV_STR
#undef HV_ENUM
};
#define N_TUNABLES (sizeof table / sizeof table[0])

static char copies[N_TUNABLES][PATH_MAX]; /* never touched for unset strings, so these pages are never there */

static void *field_of(const struct tunable *t) { return (char *)&hv_conf + t->offset; }

/* Like getenv: the first entry counts. */
static const char *lookup(char **envp, const char *name)
{
	size_t n = strlen(name);
	for (; envp != NULL && *envp != NULL; envp++)
		if (strncmp(*envp, PREFIX, PREFIX_LEN) == 0 && strncmp(*envp + PREFIX_LEN, name, n) == 0 && (*envp)[PREFIX_LEN + n] == '=')
			return *envp + PREFIX_LEN + n + 1;
	return NULL;
}

static bool parse_int(const char *s, int64_t min, int64_t max, int64_t *out)
{
	int64_t v = 0;
	bool neg = *s == '-';
	if (neg)
		s++;
	if (*s == '\0')
		return false;
	for (; *s != '\0'; s++) {
		if (*s < '0' || *s > '9' || v > (INT64_MAX - 9) / 10)
			return false;
		v = v * 10 + (*s - '0');
	}
	*out = neg ? -v : v;
	return *out >= min && *out <= max;
}

/* The index of word s in "a|b|c", or -1. */
static int enum_index(const char *list, const char *s)
{
	size_t n = strlen(s);
	for (int i = 0;; i++) {
		size_t w = strcspn(list, "|");
		if (w == n && memcmp(list, s, n) == 0)
			return i;
		if (list[w] == '\0')
			return -1;
		list += w + 1;
	}
}

static void enum_word(const char *list, int64_t i, const char **word, int *len)
{
	for (; i > 0; i--)
		list += strcspn(list, "|") + 1;
	*word = list;
	*len = (int)strcspn(list, "|");
}

static bool parse_promote(const char *s, int64_t *calls)
{
	if (strcmp(s, "never") == 0)
		*calls = -1;
	else if (strcmp(s, "always") == 0)
		*calls = 0;
	else
		return parse_int(s, 1, PROMOTE_MAX, calls);
	return true;
}

static bool valid_str(const struct tunable *t, const char *s)
{
	int64_t unused;
	if (strlen(s) >= PATH_MAX)
		return false;
	if (t->offset == offsetof(struct hv_conf, promote))
		return parse_promote(s, &unused);
	if (t->offset == offsetof(struct hv_conf, device))
		return strlen(s) < 16 && strpbrk(s, "/ \t\n") == NULL; /* IFNAMSIZ */
	return true;
}

static void set_default(const struct tunable *t)
{
	if (t->kind == KIND_INT)
		*(int64_t *)field_of(t) = t->def;
	else if (t->kind == KIND_STR)
		*(const char **)field_of(t) = t->str_def;
	else
		*(int *)field_of(t) = (int)t->def;
}

static bool set_value(const struct tunable *t, const char *s)
{
	switch (t->kind) {
	case KIND_INT: {
		int64_t v;
		if (!parse_int(s, t->min, t->max, &v))
			return false;
		*(int64_t *)field_of(t) = v;
		return true;
	}
	case KIND_STR: {
		if (!valid_str(t, s))
			return false;
		char *copy = copies[t - table];
		memcpy(copy, s, strlen(s) + 1);
		*(const char **)field_of(t) = copy;
		return true;
	}
	case KIND_ENUM: {
		int i = enum_index(t->list, s);
		if (i < 0)
			return false;
		*(int *)field_of(t) = i;
		return true;
	}
	}
	return false;
}

static void warn_invalid(const struct tunable *t, const char *s)
{
	const char *word;
	int len;
	switch (t->kind) {
	case KIND_INT:
		hv_log(HV_LOG_WARN, PREFIX "%s=%.64s: not valid, allowed %lld..%lld %s; using %lld", t->name, s, (long long)t->min, (long long)t->max, t->unit,
		       (long long)t->def);
		break;
	case KIND_STR:
		hv_log(HV_LOG_WARN, PREFIX "%s=%.64s: not valid, allowed %s; using %s", t->name, s, t->list, t->str_def[0] != '\0' ? t->str_def : "none");
		break;
	case KIND_ENUM:
		enum_word(t->list, t->def, &word, &len);
		hv_log(HV_LOG_WARN, PREFIX "%s=%.64s: not valid, allowed %s; using %.*s", t->name, s, t->list, len, word);
		break;
	}
}

/* Levenshtein distance of two short names. */
static int distance(const char *a, size_t na, const char *b)
{
	int row[NAME_MAX_OCTETS + 1];
	size_t nb = strlen(b);
	if (na > NAME_MAX_OCTETS)
		na = NAME_MAX_OCTETS;
	for (size_t i = 0; i <= na; i++)
		row[i] = (int)i;
	for (size_t j = 1; j <= nb; j++) {
		int diag = row[0];
		row[0] = (int)j;
		for (size_t i = 1; i <= na; i++) {
			int best = diag + (a[i - 1] != b[j - 1]);
			diag = row[i];
			if (diag + 1 < best)
				best = diag + 1;
			if (row[i - 1] + 1 < best)
				best = row[i - 1] + 1;
			row[i] = best;
		}
	}
	return row[na];
}

static void warn_unknown(const char *entry)
{
	const char *name = entry + PREFIX_LEN;
	size_t n = strcspn(name, "=");
	const struct tunable *near = &table[0];
	int best = INT_MAX;
	if (strncmp(name, "LAB_", 4) == 0) /* hvaccel-lab's own variables reach the programs run in it */
		return;
	for (size_t i = 0; i < N_TUNABLES; i++) {
		if (strlen(table[i].name) == n && memcmp(table[i].name, name, n) == 0)
			return;
		int d = distance(name, n, table[i].name);
		if (d < best) {
			best = d;
			near = &table[i];
		}
	}
	hv_log(HV_LOG_WARN, PREFIX "%.*s: unknown variable, ignored; the nearest known one is " PREFIX "%s", (int)(n > 64 ? 64 : n), name, near->name);
}

void hv_conf_load(char **envp)
{
	/* a set-user-ID program that trusts our directory: its caller's environment must not choose files or libraries for it */
	bool secure = getauxval(AT_SECURE) != 0;
	for (size_t i = 0; i < N_TUNABLES; i++) {
		const char *s = secure ? NULL : lookup(envp, table[i].name);
		if (s == NULL || *s == '\0' || !set_value(&table[i], s)) /* empty: as if unset */
			set_default(&table[i]);
	}
	if (secure)
		hv_conf.enable = 0;
	parse_promote(hv_conf.promote, &hv_conf.promote_calls);

	/* only now is it known how loudly and where to complain */
	hv_log_threshold = hv_conf.log_level;
	hv_log_open(hv_conf.log_file);
	if (secure)
		return;
	for (size_t i = 0; i < N_TUNABLES; i++) {
		const char *s = lookup(envp, table[i].name);
		if (s != NULL && *s != '\0' && !set_value(&table[i], s))
			warn_invalid(&table[i], s);
	}
	for (; envp != NULL && *envp != NULL; envp++)
		if (strncmp(*envp, PREFIX, PREFIX_LEN) == 0)
			warn_unknown(*envp);
}
