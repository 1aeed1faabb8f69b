/*
 * parse.c - a script's text to events. One statement a line; README.md has the grammar. Whatever isn't understood is an error with its
 * line: a typo must not make a script check less.
 */
#include "script.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS 48

struct parser {
	struct sc_script *s;
	unsigned line;
	char *w[WORDS];
	unsigned n, at;
	bool failed;
};

static bool err(struct parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool err(struct parser *p, const char *fmt, ...)
{
	va_list ap;

	if (!p->failed) {
		fprintf(stderr, "%s:%u: ", p->s->file, p->line);
		va_start(ap, fmt);
		vfprintf(stderr, fmt, ap);
		va_end(ap);
		fputc('\n', stderr);
	}
	p->failed = true;
	return false;
}

static const char *next(struct parser *p)
{
	return p->at < p->n ? p->w[p->at++] : NULL;
}

static bool is(struct parser *p, const char *word)
{
	if (p->at < p->n && strcmp(p->w[p->at], word) == 0) {
		p->at++;
		return true;
	}
	return false;
}

static bool num(struct parser *p, const char *w, uint32_t *v)
{
	char *end;
	unsigned long long u;

	if (w == NULL)
		return err(p, "a number is missing");
	errno = 0;
	u = strtoull(w, &end, 10);
	if (end == w || *end != 0 || errno != 0 || u > UINT32_MAX || *w == '-')
		return err(p, "'%s' is no number", w);
	*v = (uint32_t)u;
	return true;
}

/* a:b, both relative sequence numbers */
static bool span(const char *w, uint32_t *a, uint32_t *b)
{
	char *end;
	unsigned long long x, y;

	if (w == NULL || *w < '0' || *w > '9')
		return false;
	x = strtoull(w, &end, 10);
	if (*end != ':' || end[1] < '0' || end[1] > '9')
		return false;
	y = strtoull(end + 1, &end, 10);
	if (*end != 0 || x > UINT32_MAX || y > UINT32_MAX)
		return false;
	*a = (uint32_t)x;
	*b = (uint32_t)y;
	return true;
}

static bool millis(const char *w, uint64_t *us, const char **end)
{
	char *e;
	double d = strtod(w, &e);

	if (e == w || d < 0 || d > 1e7)
		return false;
	*us = (uint64_t)(d * 1000 + 0.5);
	*end = e;
	return true;
}

static bool when(struct parser *p, struct sc_event *e)
{
	const char *w = p->w[p->at], *end;

	if (strcmp(w, "*") == 0) {
		e->any = true;
		p->at++;
		return true;
	}
	if (*w != '+')
		return true;
	if (!millis(w + 1, &e->t0, &end))
		return err(p, "'%s' is no time", w);
	e->t1 = e->t0;
	if (*end == '~') {
		e->range = true;
		if (!millis(end + 1, &e->t1, &end) || e->t1 < e->t0)
			return err(p, "'%s' is no range of time", w);
	}
	if (*end != 0)
		return err(p, "'%s' is no time", w);
	p->at++;
	return true;
}

static bool flags(const char *w, uint8_t *f)
{
	static const char *const letter = "FSRP.UEW";
	uint8_t v = 0;

	for (; *w != 0; w++) {
		const char *c = strchr(letter, *w);

		if (c == NULL)
			return false;
		v = (uint8_t)(v | 1u << (c - letter));
	}
	*f = v;
	return true;
}

static bool label(const char *w, int *l)
{
	if (w[0] < 'a' || w[0] > 'z' || w[1] != 0)
		return false;
	*l = w[0] - 'a';
	return true;
}

static bool packet(struct parser *p, struct sc_pkt *k, bool in)
{
	const char *w;
	uint32_t a, b;

	k->flags = 16;
	k->val_label = k->ecr_label = SC_NO_LABEL;
	k->wscale = -1;
	if (p->at < p->n && flags(p->w[p->at], &k->flags))
		p->at++;
	if (p->at < p->n && span(p->w[p->at], &a, &b)) {
		p->at++;
		if ((int32_t)(b - a) < 0)
			return err(p, "a segment ends before it begins");
		k->has_seq = true;
		k->seq = a;
		k->len = b - a;
	}
	while ((w = next(p)) != NULL) {
		if (strcmp(w, "ack") == 0) {
			k->has_ack = true;
			if (!num(p, next(p), &k->ack))
				return false;
		} else if (strcmp(w, "win") == 0) {
			k->has_wnd = true;
			if (!num(p, next(p), &k->wnd))
				return false;
		} else if (strcmp(w, "minwin") == 0 && !in) {
			if (!num(p, next(p), &k->min_wnd))
				return false;
		} else if (strcmp(w, "urg") == 0) {
			if (!num(p, next(p), &k->urg))
				return false;
			k->flags |= 32;
		} else if (strcmp(w, "sack") == 0) {
			while (p->at < p->n && span(p->w[p->at], &a, &b)) {
				if (k->nsack == 4)
					return err(p, "more than four SACK blocks");
				k->sack[k->nsack][0] = a;
				k->sack[k->nsack][1] = b;
				k->nsack++;
				p->at++;
			}
			if (k->nsack == 0)
				return err(p, "sack without blocks");
		} else if (strcmp(w, "nots") == 0) {
			k->no_ts = true;
		} else if (strcmp(w, "val") == 0) {
			k->has_ts = true;
			if ((w = next(p)) == NULL)
				return err(p, "val of what?");
			if (!label(w, &k->val_label)) {
				k->has_val = true;
				if (!num(p, w, &k->tsval))
					return false;
			} else if (in) {
				return err(p, "a label names a stamp of the other side");
			}
		} else if (strcmp(w, "ecr") == 0) {
			k->has_ts = true;
			if ((w = next(p)) == NULL)
				return err(p, "ecr of what?");
			if (!label(w, &k->ecr_label)) {
				k->has_ecr = true;
				if (!num(p, w, &k->tsecr))
					return false;
			} else if (!in) {
				return err(p, "an echoed stamp of the peer has no label");
			}
		} else if (strcmp(w, "ce") == 0 || strcmp(w, "ect0") == 0 || strcmp(w, "noect") == 0) {
			k->has_tos = true;
			k->tos = *w == 'c' ? 3 : *w == 'e' ? 2 : 0;
		} else {
			return err(p, "'%s' is nothing that a segment has", w);
		}
	}
	return true;
}

static bool open_args(struct parser *p, struct sc_open *o)
{
	const char *w;
	uint32_t v;

	*o = (struct sc_open){ .mss = 1000, .rtt_ms = 50, .wnd = 65535, .wscale = -1, .cc = "cubic" };
	while ((w = next(p)) != NULL) {
		if (strcmp(w, "mss") == 0) {
			if (!num(p, next(p), &o->mss))
				return false;
		} else if (strcmp(w, "rtt") == 0) {
			if (!num(p, next(p), &o->rtt_ms))
				return false;
		} else if (strcmp(w, "win") == 0) {
			if (!num(p, next(p), &o->wnd))
				return false;
		} else if (strcmp(w, "rcvbuf") == 0) {
			if (!num(p, next(p), &o->rcvbuf))
				return false;
		} else if (strcmp(w, "sndbuf") == 0) {
			if (!num(p, next(p), &o->sndbuf))
				return false;
		} else if (strcmp(w, "clamp") == 0) {
			if (!num(p, next(p), &o->clamp))
				return false;
		} else if (strcmp(w, "maxseg") == 0) {
			if (!num(p, next(p), &o->maxseg))
				return false;
		} else if (strcmp(w, "wscale") == 0) {
			if (!num(p, next(p), &v) || v > 14)
				return err(p, "wscale is 0 to 14");
			o->wscale = (int)v;
		} else if (strcmp(w, "cc") == 0) {
			if ((w = next(p)) == NULL || (strcmp(w, "cubic") != 0 && strcmp(w, "reno") != 0))
				return err(p, "cc is cubic or reno");
			snprintf(o->cc, sizeof o->cc, "%s", w);
		} else if (strcmp(w, "sack") == 0) {
			o->sack = true;
		} else if (strcmp(w, "ts") == 0) {
			o->ts = true;
		} else if (strcmp(w, "ecn") == 0) {
			o->ecn = true;
		} else {
			return err(p, "'%s' is no option of open", w);
		}
	}
	return true;
}

static bool errno_named(const char *w, int64_t *v)
{
	static const struct { const char *name; int64_t v; } t[] = { { "eof", 0 }, { "EAGAIN", -EAGAIN }, { "ECONNRESET", -ECONNRESET },
		{ "ETIMEDOUT", -ETIMEDOUT }, { "EPIPE", -EPIPE }, { "ENOTCONN", -ENOTCONN }, { "EINVAL", -EINVAL } };

	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		if (strcmp(w, t[i].name) == 0) {
			*v = t[i].v;
			return true;
		}
	}
	return false;
}

/* [= RESULT] */
static bool result(struct parser *p, struct sc_event *e, int64_t def)
{
	const char *w;
	uint32_t v;

	e->want = def;
	if (!is(p, "="))
		return true;
	if ((w = next(p)) == NULL)
		return err(p, "= what?");
	if (errno_named(w, &e->want))
		return true;
	if (!num(p, w, &v))
		return false;
	e->want = v;
	return true;
}

static bool conditions(struct parser *p, struct sc_event *e)
{
	const char *w;

	while ((w = next(p)) != NULL) {
		struct sc_cond *c = &e->cond[e->n_cond];
		size_t n = strcspn(w, "<>=");
		char *end;

		if (e->n_cond == 8 || n == 0 || n >= sizeof c->field || w[n] == 0)
			return err(p, "'%s' is no condition", w);
		memcpy(c->field, w, n);
		w += n;
		n = strspn(w, "<>=");
		if (n > 2)
			return err(p, "'%s' is no comparison", w);
		memcpy(c->op, w, n);
		c->val = c->max = (uint32_t)strtoul(w + n, &end, 10);
		if (end != w + n && *end == '~') {
			w = end + 1;
			n = 0;
			c->max = (uint32_t)strtoul(w, &end, 10);
		}
		if (end == w + n || *end != 0)
			return err(p, "'%s' is no condition", w);
		e->n_cond++;
	}
	return e->n_cond != 0 || err(p, "info of what?");
}

static bool event(struct parser *p, struct sc_event *e)
{
	const char *w = next(p);

	if (w == NULL)
		return err(p, "nothing happens here");
	if (strcmp(w, "<") == 0) {
		e->kind = SC_IN;
		return packet(p, &e->pkt, true);
	}
	if (strcmp(w, ">") == 0) {
		e->kind = SC_OUT;
		return packet(p, &e->pkt, false);
	}
	if (e->any || e->range)
		return err(p, "only a segment that comes out has a range of time");
	if (strcmp(w, "open") == 0) {
		e->kind = SC_OPEN;
		return open_args(p, &e->open);
	}
	if (strcmp(w, "quiet") == 0) {
		e->kind = SC_QUIET;
		return true;
	}
	if (strcmp(w, "write") == 0) {
		e->kind = SC_WRITE;
		if (!num(p, next(p), &e->n))
			return false;
		e->more = is(p, "more");
		return result(p, e, e->n);
	}
	if (strcmp(w, "read") == 0) {
		e->kind = SC_READ;
		return num(p, next(p), &e->n) && result(p, e, e->n);
	}
	if (strcmp(w, "shutdown") == 0 || strcmp(w, "close") == 0) {
		e->kind = *w == 's' ? SC_SHUTDOWN : SC_CLOSE;
		return true;
	}
	if (strcmp(w, "setopt") == 0) {
		e->kind = SC_SETOPT;
		if ((w = next(p)) == NULL || strlen(w) >= sizeof e->name)
			return err(p, "setopt of what?");
		snprintf(e->name, sizeof e->name, "%s", w);
		return num(p, next(p), &e->n) && result(p, e, 0);
	}
	if (strcmp(w, "info") == 0) {
		e->kind = SC_INFO;
		return conditions(p, e);
	}
	if (strcmp(w, "poll") == 0) {
		e->kind = SC_POLL;
		while ((w = next(p)) != NULL) {
			unsigned bit;
			bool no = *w == '!';

			w += no;
			bit = strcmp(w, "in") == 0 ? SC_IN_READY : strcmp(w, "out") == 0 ? SC_OUT_READY : strcmp(w, "hup") == 0 ? SC_HUP : 0;
			if (bit == 0)
				return err(p, "poll knows in, out, hup and !");
			e->mask |= bit;
			e->ready |= no ? 0 : bit;
		}
		return e->mask != 0 || err(p, "poll for what?");
	}
	if (strcmp(w, "inq") == 0 || strcmp(w, "outq") == 0 || strcmp(w, "pmtu") == 0) {
		e->kind = *w == 'i' ? SC_INQ : *w == 'o' ? SC_OUTQ : SC_PMTU;
		return num(p, next(p), &e->n);
	}
	if (strcmp(w, "move") == 0) {
		e->kind = SC_MOVE;
		return true;
	}
	if (strcmp(w, "wait") == 0) {
		e->kind = SC_WAIT;
		return true;
	}
	if (strcmp(w, "demotes") == 0) {
		e->kind = SC_DEMOTES;
		e->side = SC_CORE;
		return p->at == p->n || conditions(p, e);
	}
	return err(p, "'%s' is no event", w);
}

static bool statement(struct parser *p, bool has_comment)
{
	struct sc_script *s = p->s;
	struct sc_event *e;

	if (is(p, "sysctl")) {
		const char *w = next(p), *eq = w != NULL ? strchr(w, '=') : NULL;
		struct sc_sysctl *c = &s->sysctl[s->n_sysctl];

		if (eq == NULL || s->n_sysctl == 8 || (size_t)(eq - w) >= sizeof c->name || strlen(eq) > sizeof c->val)
			return err(p, "sysctl NAME=VALUE");
		memcpy(c->name, w, (size_t)(eq - w));
		snprintf(c->val, sizeof c->val, "%s", eq + 1);
		s->n_sysctl++;
		return p->at == p->n || err(p, "too many words");
	}
	if (is(p, "late"))
		return num(p, next(p), &s->late_ms);
	if (s->n == SC_EVENTS)
		return err(p, "too many events");
	e = &s->ev[s->n];
	e->line = p->line;
	if (is(p, "core:"))
		e->side = SC_CORE;
	else if (is(p, "kernel:"))
		e->side = SC_KERNEL;
	if (e->side != SC_BOTH && !has_comment)
		return err(p, "a line for one side only says why, in a comment");
	if (p->at == p->n)
		return err(p, "nothing happens here");
	if (!when(p, e) || !event(p, e))
		return false;
	if (p->at != p->n)
		return err(p, "'%s' is too much", p->w[p->at]);
	if ((s->n == 0) != (e->kind == SC_OPEN) && e->side == SC_BOTH)
		return err(p, "a script begins with open, and has one");
	s->n++;
	return true;
}

bool sc_parse(struct sc_script *s, const char *file)
{
	struct parser p = { .s = s };
	char line[512], raw[512];
	FILE *f;

	memset(s, 0, sizeof *s);
	snprintf(s->file, sizeof s->file, "%s", file);
	s->ev = calloc(SC_EVENTS, sizeof *s->ev);
	f = fopen(file, "r");
	if (f == NULL || s->ev == NULL) {
		fprintf(stderr, "%s: %s\n", file, strerror(errno));
		if (f != NULL)
			fclose(f);
		return false;
	}
	while (!p.failed && fgets(line, sizeof line, f) != NULL) {
		char *c, *save = NULL;
		bool comment = false;

		p.line++;
		line[strcspn(line, "\r\n")] = 0;
		snprintf(raw, sizeof raw, "%s", line);
		if (p.line == 1 && line[0] == '#')
			snprintf(s->title, sizeof s->title, "%.190s", line[1] == ' ' ? line + 2 : line + 1);
		if ((c = strchr(line, '#')) != NULL) {
			comment = c[1] != 0;
			*c = 0;
		}
		p.n = p.at = 0;
		for (c = strtok_r(line, " \t", &save); c != NULL && p.n < WORDS; c = strtok_r(NULL, " \t", &save))
			p.w[p.n++] = c;
		if (p.n == 0)
			continue;
		if (p.n == WORDS) {
			err(&p, "too many words");
			break;
		}
		if (statement(&p, comment) && s->n != 0 && s->ev[s->n - 1].line == p.line)
			snprintf(s->ev[s->n - 1].text, sizeof s->ev->text, "%.*s", (int)sizeof s->ev->text - 1, raw);
	}
	fclose(f);
	if (!p.failed && s->title[0] == 0)
		err(&p, "the first line says in a comment what the script shows");
	if (!p.failed && s->n == 0)
		err(&p, "nothing happens");
	return !p.failed;
}

void sc_free(struct sc_script *s)
{
	free(s->ev);
	s->ev = NULL;
}
