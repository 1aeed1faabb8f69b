/*
 * log.h - the library's only voice. Quiet by default; one write(2) per line, no stdio, no allocation, errno preserved; callable anywhere, also in a signal
 * handler. hv_log_once() speaks once per process for one call site.
 */
#ifndef HV_LOG_H
#define HV_LOG_H

enum hv_log_level { HV_LOG_NONE, HV_LOG_ERROR, HV_LOG_WARN, HV_LOG_INFO, HV_LOG_DEBUG, HV_LOG_TRACE };
extern int hv_log_threshold;
void hv_log_write(enum hv_log_level lvl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void hv_log_open(const char *path); /* NULL or "": fd 2 */
#define hv_log(lvl, ...) do { if (__builtin_expect((int)(lvl) <= hv_log_threshold, 0)) hv_log_write((lvl), __VA_ARGS__); } while (0)
#define hv_log_once(lvl, ...) do { static _Bool hv_once_; if (!__atomic_exchange_n(&hv_once_, 1, __ATOMIC_RELAXED)) hv_log((lvl), __VA_ARGS__); } while (0)

#endif
