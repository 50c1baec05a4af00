/* Ends the process at the n-th write, sync, truncation or unlink of a file whose path holds a given text.
   Loaded by LD_PRELOAD; tests/silo_node/ledger_victim.py arms it. With `is_torn` half of a write is done first. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long left = -1;
static int is_torn = 0;
static char within[256] = "";

void arm(long at, int torn, const char *text) {
    snprintf(within, sizeof within, "%s", text);
    is_torn = torn;
    left = at;
}

static int is_due(int fd) {
    char link[64], path[512];
    if (left < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, within) != NULL && --left == 0;
}

static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

#define REAL(type, name, ...) type (*real)(__VA_ARGS__) = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    if (is_due(fd)) { if (is_torn) real(fd, data, size / 2, at); die(); }
    return real(fd, data, size, at);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    if (is_due(fd)) { if (is_torn) real(fd, data, size / 2, at); die(); }
    return real(fd, data, size, at);
}
ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (is_due(fd)) { if (is_torn) real(fd, data, size / 2); die(); }
    return real(fd, data, size);
}
int fsync(int fd) { REAL(int, "fsync", int); if (is_due(fd)) die(); return real(fd); }
int fdatasync(int fd) { REAL(int, "fdatasync", int); if (is_due(fd)) die(); return real(fd); }
int ftruncate64(int fd, off64_t size) {
    REAL(int, "ftruncate64", int, off64_t);
    if (is_due(fd)) die();
    return real(fd, size);
}
