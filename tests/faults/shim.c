/* Makes the n-th operation on files below a folder fail, or kills the process there. Loaded with LD_PRELOAD.
 *
 * fault_arm(root, n, error) starts to count opens for writing, writes, syncs, renames, links and new folders below
 * `root`; the n-th of them (from 1) fails with errno `error`, or, if that is 0, ends the process as SIGKILL does.
 * With n = 0 nothing fails. Those after the n-th go through: a disk that is full for one file may take the next.
 * fault_count() is how many there were.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static long fails_at, seen;
static int with;

void fault_arm(const char *folder, long n, int error) {
    seen = 0;
    fails_at = n;
    with = error;
    snprintf(root, sizeof root, "%s", folder);
}

long fault_count(void) { return __atomic_load_n(&seen, __ATOMIC_SEQ_CST); }

static int is_below(const char *path) { return strncmp(path, root, strlen(root)) == 0; }

/* Whether this operation is the one that fails; errno is set then. */
static int is_hit(void) {
    if (__atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST) != fails_at) return 0;
    if (with == 0) kill(getpid(), SIGKILL);
    errno = with;
    return 1;
}

static int path_hit(int folder, const char *path) {
    char whole[PATH_MAX * 2], base[PATH_MAX];
    if (root[0] == 0 || path == NULL) return 0;
    if (path[0] == '/') return is_below(path) && is_hit();
    if (folder == AT_FDCWD) {
        if (getcwd(base, sizeof base) == NULL) return 0;
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t size = readlink(link, base, sizeof base - 1);
        if (size < 0) return 0;
        base[size] = 0;
    }
    snprintf(whole, sizeof whole, "%s/%s", base, path);
    return is_below(whole) && is_hit();
}

static int fd_hit(int fd) {
    char link[64], path[PATH_MAX];
    if (root[0] == 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return is_below(path) && is_hit();
}

#define REAL(result, name, ...)                                             \
    static result (*real)(__VA_ARGS__);                                     \
    if (real == NULL) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int writes(int flags) { return (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) != 0; }

#define OPEN(name)                                                          \
    int name(const char *path, int flags, ...) {                            \
        REAL(int, #name, const char *, int, ...);                           \
        va_list rest;                                                       \
        va_start(rest, flags);                                              \
        mode_t mode = va_arg(rest, mode_t);                                 \
        va_end(rest);                                                       \
        if (writes(flags) && path_hit(AT_FDCWD, path)) return -1;           \
        return real(path, flags, mode);                                     \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                        \
    int name(int folder, const char *path, int flags, ...) {                \
        REAL(int, #name, int, const char *, int, ...);                      \
        va_list rest;                                                       \
        va_start(rest, flags);                                              \
        mode_t mode = va_arg(rest, mode_t);                                 \
        va_end(rest);                                                       \
        if (writes(flags) && path_hit(folder, path)) return -1;             \
        return real(folder, path, flags, mode);                             \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                         \
    FILE *name(const char *path, const char *mode) {                        \
        REAL(FILE *, #name, const char *, const char *);                    \
        if (strpbrk(mode, "wa+") && path_hit(AT_FDCWD, path)) return NULL;  \
        return real(path, mode);                                            \
    }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    return fd_hit(fd) ? -1 : real(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    return fd_hit(fd) ? -1 : real(fd, parts, count);
}

#define PWRITE(name)                                                        \
    ssize_t name(int fd, const void *data, size_t size, off_t at) {         \
        REAL(ssize_t, #name, int, const void *, size_t, off_t);             \
        return fd_hit(fd) ? -1 : real(fd, data, size, at);                  \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define OF_FD(name)                                                         \
    int name(int fd) {                                                      \
        REAL(int, #name, int);                                              \
        return fd_hit(fd) ? -1 : real(fd);                                  \
    }
OF_FD(fsync)
OF_FD(fdatasync)

#define TRUNCATE(name)                                                      \
    int name(int fd, off_t size) {                                          \
        REAL(int, #name, int, off_t);                                       \
        return fd_hit(fd) ? -1 : real(fd, size);                            \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define SENDFILE(name)                                                      \
    ssize_t name(int to, int from, off_t *at, size_t size) {                \
        REAL(ssize_t, #name, int, int, off_t *, size_t);                    \
        return fd_hit(to) ? -1 : real(to, from, at, size);                  \
    }
SENDFILE(sendfile)
SENDFILE(sendfile64)

ssize_t copy_file_range(int from, off_t *at, int to, off_t *there, size_t size, unsigned flags) {
    REAL(ssize_t, "copy_file_range", int, off_t *, int, off_t *, size_t, unsigned);
    return fd_hit(to) ? -1 : real(from, at, to, there, size, flags);
}

#define TWO_PATHS(name)                                                     \
    int name(const char *from, const char *to) {                            \
        REAL(int, #name, const char *, const char *);                       \
        return path_hit(AT_FDCWD, to) ? -1 : real(from, to);                \
    }
TWO_PATHS(rename)
TWO_PATHS(link)
TWO_PATHS(symlink)

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    return path_hit(to_folder, to) ? -1 : real(from_folder, from, to_folder, to);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    return path_hit(to_folder, to) ? -1 : real(from_folder, from, to_folder, to, flags);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    return path_hit(AT_FDCWD, path) ? -1 : real(path, mode);
}
