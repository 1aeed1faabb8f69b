/*
 * sv_stubs.c - the rest of libibverbs' exported symbols, so that whatever was linked against the real library resolves: programs,
 * and its providers (libmlx5, libefa, ... want IBVERBS_PRIVATE_34). Table in sv_stubs.def, versions in libibverbs.map.
 */
#include <errno.h>
#include <stddef.h>

#define EXPORTED __attribute__((visibility("default")))
#define SV_INT(n) EXPORTED int n(void); EXPORTED int n(void) { errno = EOPNOTSUPP; return EOPNOTSUPP; }
#define SV_MINUS(n) EXPORTED int n(void); EXPORTED int n(void) { errno = EOPNOTSUPP; return -1; }
#define SV_PTR(n) EXPORTED void *n(void); EXPORTED void *n(void) { errno = EOPNOTSUPP; return NULL; }
#define SV_ZERO(n) EXPORTED long n(void); EXPORTED long n(void) { return 0; }
#define SV_VERSION(n) __asm__(".symver " #n ", " #n "@@@IBVERBS_1.1");
#define SV_SYMVER(n, v) __asm__(".symver sv_old_" #n ", " #n "@" v);
#define SV_OLD_INT(n, v) SV_INT(sv_old_##n) SV_SYMVER(n, v)
#define SV_OLD_PTR(n, v) SV_PTR(sv_old_##n) SV_SYMVER(n, v)
#define SV_OLD_ZERO(n, v) SV_ZERO(sv_old_##n) SV_SYMVER(n, v)

#include "softvf/sv_stubs.def"

EXPORTED const char *ibv_get_sysfs_path(void);
EXPORTED const char *ibv_get_sysfs_path(void) { return "/sys"; }

/* Providers read it. */
extern EXPORTED unsigned char verbs_allow_disassociate_destroy;
EXPORTED unsigned char verbs_allow_disassociate_destroy;
