/* Interposes the file operations of Python and SQLite on files below one directory: tests/recovery/shim.py says how.

   Loaded with LD_PRELOAD and idle until `lab_arm` is called (in a forked child, through ctypes). From then on each
   operation is counted by kind, and, by mode: the process kills itself at an operation, an operation fails, or all
   changes are recorded with their data. Operations on other files pass. One lock orders operations, so that the
   record is the order in which the kernel saw them. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, COUNT, KILL, RECORD, FAIL };
enum {
    OPEN = 1, OPEN_WRITE = 2, CREATE = 4, WRITE = 8, SYNC = 16, TRUNCATE = 32, ALLOCATE = 64, UNLINK = 128,
    RENAME = 256, READ = 512, CLOSE = 1024, LOCK = 2048
};
#define CHANGES (CREATE | WRITE | SYNC | TRUNCATE | ALLOCATE | UNLINK | RENAME)
#define KINDS 12
#define DESCRIPTORS 4096

/* Shared with the parent process, which reads it when this one is dead. Mirrored in shim.py. */
struct control {
    int64_t mode, at, torn, mask, error, lasting;
    int64_t changes, matched, failed, kinds[KINDS], record_error;
};

/* One entry of the record; `path_bytes` and `data_bytes` follow it. Mirrored in disk.py. */
struct entry {
    int32_t operation, descriptor, flags, path_bytes;
    int64_t offset, data_bytes, number;
};
enum { CREATED = 1, EMPTIED = 2, DIRECTORY = 4 };

static struct control idle;
static struct control *control = &idle;
static char root[PATH_MAX];
static size_t root_bytes;
static int record_to = -1;
static unsigned char watched[DESCRIPTORS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(result, name, parameters)                              \
    static result (*real) parameters;                               \
    if (!real) real = (result (*) parameters) dlsym(RTLD_NEXT, name)

static ssize_t real_write(int fd, const void *data, size_t bytes) {
    REAL(ssize_t, "write", (int, const void *, size_t));
    return real(fd, data, bytes);
}

static void put(const void *data, size_t bytes) {
    const char *at = data;
    while (bytes) {
        ssize_t written = real_write(record_to, at, bytes);
        if (written <= 0) {
            control->record_error = errno;
            return;
        }
        at += written;
        bytes -= (size_t)written;
    }
}

static void record(char operation, int fd, int flags, const char *path, int64_t offset, const void *data, size_t bytes) {
    if (control->mode != RECORD) return;
    struct entry entry = {operation, fd, flags, path ? (int32_t)strlen(path) : 0, offset, (int64_t)bytes, control->changes};
    put(&entry, sizeof entry);
    put(path, (size_t)entry.path_bytes);
    if (data) put(data, bytes);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Count an operation that is several `kinds` at once. Returns 0 to go on, or the error that it is to fail with. Does
   not return where it is to be killed, unless `torn` is given and the operation is to be done by half first. */
static int enter(int kinds, int *torn) {
    for (int kind = 0; kind < KINDS; kind++)
        if (kinds & 1 << kind) control->kinds[kind]++;
    if (kinds & CHANGES) {
        control->changes++;
        if (control->mode == KILL && control->changes == control->at) {
            if (!torn || !control->torn) die();
            *torn = 1;
        }
    }
    if (control->mode == FAIL && kinds & control->mask) {
        control->matched++;
        if (control->matched == control->at || (control->lasting && control->matched > control->at)) {
            control->failed++;
            return (int)control->error;
        }
    }
    return 0;
}

static int is_watched(int fd) { return control->mode != OFF && fd >= 0 && fd < DESCRIPTORS && watched[fd]; }

/* Whether `path` is the directory or below it; its absolute form in `full`. Links and ".." are not resolved. */
static int is_below(int directory, const char *path, char *full) {
    if (control->mode == OFF || !path) return 0;
    if (path[0] == '/') {
        snprintf(full, PATH_MAX, "%s", path);
    } else {
        char from[PATH_MAX];
        if (directory == AT_FDCWD) {
            if (!getcwd(from, sizeof from)) return 0;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
            ssize_t length = readlink(link, from, sizeof from - 1);
            if (length < 0) return 0;
            from[length] = 0;
        }
        if (snprintf(full, PATH_MAX, "%s/%s", from, path) >= PATH_MAX) return 0;
    }
    return !strncmp(full, root, root_bytes) && (full[root_bytes] == '/' || !full[root_bytes]);
}

static int failed(int error) {
    pthread_mutex_unlock(&lock);
    errno = error;
    return -1;
}

static int do_open(int directory, const char *path, int flags, mode_t mode) {
    REAL(int, "openat", (int, const char *, int, ...));
    char full[PATH_MAX];
    if (!is_below(directory, path, full)) return real(directory, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat found;
    int is_there = !fstatat(AT_FDCWD, full, &found, 0);
    int created = flags & O_CREAT && !is_there, emptied = flags & O_TRUNC && is_there && found.st_size > 0;
    int kinds = OPEN | ((flags & O_ACCMODE) != O_RDONLY ? OPEN_WRITE : 0) | (created || emptied ? CREATE : 0);
    int error = enter(kinds, NULL);
    if (error) return failed(error);
    int fd = real(directory, path, flags, mode);
    error = errno;
    if (fd >= 0 && fd < DESCRIPTORS) {
        int is_directory = is_there && S_ISDIR(found.st_mode);
        watched[fd] = 1;
        record('O', fd, (created ? CREATED : 0) | (emptied ? EMPTIED : 0) | (is_directory ? DIRECTORY : 0), full, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

static mode_t mode_of(int flags, va_list rest) {
    return flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(rest, int) : 0;
}

#define OPENING(name, parameters, directory)                        \
    int name parameters {                                           \
        va_list rest;                                               \
        va_start(rest, flags);                                      \
        mode_t mode = mode_of(flags, rest);                         \
        va_end(rest);                                               \
        return do_open(directory, path, flags, mode);               \
    }
OPENING(open, (const char *path, int flags, ...), AT_FDCWD)
OPENING(open64, (const char *path, int flags, ...), AT_FDCWD)
OPENING(openat, (int directory, const char *path, int flags, ...), directory)
OPENING(openat64, (int directory, const char *path, int flags, ...), directory)
int __open_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }

int close(int fd) {
    REAL(int, "close", (int));
    if (!is_watched(fd)) return real(fd);
    pthread_mutex_lock(&lock);
    int error = enter(CLOSE, NULL);
    watched[fd] = 0;
    record('C', fd, 0, NULL, 0, NULL, 0);
    int result = real(fd);  /* also when it is said to fail: the descriptor is gone then too */
    if (!error && result < 0) error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return error ? -1 : 0;
}

/* A write at `offset`, or at the descriptor's own place (-1). */
static ssize_t do_write(int fd, const void *data, size_t bytes, off64_t offset) {
    REAL(ssize_t, "pwrite64", (int, const void *, size_t, off64_t));
    if (!is_watched(fd)) return offset < 0 ? real_write(fd, data, bytes) : real(fd, data, bytes, offset);
    pthread_mutex_lock(&lock);
    int torn = 0, error = enter(WRITE, &torn);
    if (error) return failed(error);
    if (torn) bytes = bytes > 1024 ? bytes / 2 / 512 * 512 : bytes / 2;
    ssize_t written = offset < 0 ? real_write(fd, data, bytes) : real(fd, data, bytes, offset);
    error = errno;
    if (torn) die();
    if (written > 0) record('W', fd, 0, NULL, offset < 0 ? lseek64(fd, 0, SEEK_CUR) - written : offset, data, (size_t)written);
    pthread_mutex_unlock(&lock);
    errno = error;
    return written;
}

ssize_t write(int fd, const void *data, size_t bytes) { return do_write(fd, data, bytes, -1); }
ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) { return do_write(fd, data, bytes, offset); }
ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t offset) { return do_write(fd, data, bytes, offset); }

static ssize_t do_writev(int fd, const struct iovec *parts, int count, off64_t offset) {
    size_t bytes = 0, at = 0;
    for (int part = 0; part < count; part++) bytes += parts[part].iov_len;
    char *data = malloc(bytes ? bytes : 1);
    if (!data) {
        errno = ENOMEM;
        return -1;
    }
    for (int part = 0; part < count; at += parts[part++].iov_len) memcpy(data + at, parts[part].iov_base, parts[part].iov_len);
    ssize_t written = do_write(fd, data, bytes, offset);
    int error = errno;
    free(data);
    errno = error;
    return written;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", (int, const struct iovec *, int));
    return is_watched(fd) ? do_writev(fd, parts, count, -1) : real(fd, parts, count);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    REAL(ssize_t, "pwritev", (int, const struct iovec *, int, off_t));
    return is_watched(fd) ? do_writev(fd, parts, count, offset) : real(fd, parts, count, offset);
}

#define READING(name, parameters, arguments)                        \
    ssize_t name parameters {                                       \
        REAL(ssize_t, #name, parameters);                           \
        if (!is_watched(fd)) return real arguments;                 \
        pthread_mutex_lock(&lock);                                  \
        int error = enter(READ, NULL);                              \
        if (error) return failed(error);                            \
        pthread_mutex_unlock(&lock);                                \
        return real arguments;                                      \
    }
READING(read, (int fd, void *data, size_t bytes), (fd, data, bytes))
READING(pread, (int fd, void *data, size_t bytes, off_t offset), (fd, data, bytes, offset))
READING(pread64, (int fd, void *data, size_t bytes, off64_t offset), (fd, data, bytes, offset))
READING(readv, (int fd, const struct iovec *parts, int count), (fd, parts, count))

/* An operation on a descriptor that returns 0 or -1 and, done, is entered in the record. */
#define ON_DESCRIPTOR(name, parameters, arguments, kind, code, offset, length) \
    int name parameters {                                           \
        REAL(int, #name, parameters);                               \
        if (!is_watched(fd)) return real arguments;                 \
        pthread_mutex_lock(&lock);                                  \
        int error = enter(kind, NULL);                              \
        if (error) return failed(error);                            \
        int result = real arguments;                                \
        error = errno;                                              \
        if (!result) record(code, fd, 0, NULL, offset, NULL, length); \
        pthread_mutex_unlock(&lock);                                \
        errno = error;                                              \
        return result;                                              \
    }
ON_DESCRIPTOR(fsync, (int fd), (fd), SYNC, 'S', 0, 0)
ON_DESCRIPTOR(fdatasync, (int fd), (fd), SYNC, 'S', 0, 0)
ON_DESCRIPTOR(ftruncate, (int fd, off_t size), (fd, size), TRUNCATE, 'T', size, 0)
ON_DESCRIPTOR(ftruncate64, (int fd, off64_t size), (fd, size), TRUNCATE, 'T', size, 0)
ON_DESCRIPTOR(fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size), ALLOCATE, 'A', at + size, 0)
ON_DESCRIPTOR(fallocate64, (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size), ALLOCATE, 'A', at + size, 0)

/* Starts writing, promises nothing about metadata: counted, but no sync of the record. */
int sync_file_range(int fd, off64_t at, off64_t bytes, unsigned flags) {
    REAL(int, "sync_file_range", (int, off64_t, off64_t, unsigned));
    if (!is_watched(fd)) return real(fd, at, bytes, flags);
    pthread_mutex_lock(&lock);
    int error = enter(SYNC, NULL);
    if (error) return failed(error);
    pthread_mutex_unlock(&lock);
    return real(fd, at, bytes, flags);
}

/* These return the error itself. */
#define POSIX_FALLOCATE(name, off)                                  \
    int name(int fd, off at, off bytes) {                           \
        REAL(int, #name, (int, off, off));                          \
        if (!is_watched(fd)) return real(fd, at, bytes);            \
        pthread_mutex_lock(&lock);                                  \
        int error = enter(ALLOCATE, NULL);                          \
        if (!error) error = real(fd, at, bytes);                    \
        if (!error) record('A', fd, 0, NULL, at + bytes, NULL, 0);  \
        pthread_mutex_unlock(&lock);                                \
        return error;                                               \
    }
POSIX_FALLOCATE(posix_fallocate, off_t)
POSIX_FALLOCATE(posix_fallocate64, off64_t)

int unlinkat(int directory, const char *path, int flags) {
    REAL(int, "unlinkat", (int, const char *, int));
    char full[PATH_MAX];
    if (!is_below(directory, path, full)) return real(directory, path, flags);
    pthread_mutex_lock(&lock);
    int error = faccessat(directory, path, F_OK, AT_SYMLINK_NOFOLLOW) ? 0 : enter(UNLINK, NULL);
    if (error) return failed(error);
    int result = real(directory, path, flags);
    error = errno;
    if (!result) record('U', -1, 0, full, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

static int do_rename(int from, const char *old, int to, const char *new, char code) {
    REAL(int, "renameat", (int, const char *, int, const char *));
    char full_old[PATH_MAX], full_new[PATH_MAX];
    int below = is_below(from, old, full_old);
    below = is_below(to, new, full_new) || below;
    if (!below) return code == 'R' ? real(from, old, to, new) : linkat(from, old, to, new, 0);
    pthread_mutex_lock(&lock);
    int error = enter(RENAME, NULL);
    if (error) return failed(error);
    int result = code == 'R' ? real(from, old, to, new) : linkat(from, old, to, new, 0);
    error = errno;
    if (!result) record(code, -1, 0, full_old, 0, full_new, strlen(full_new));
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int renameat(int from, const char *old, int to, const char *new) { return do_rename(from, old, to, new, 'R'); }
int rename(const char *old, const char *new) { return do_rename(AT_FDCWD, old, AT_FDCWD, new, 'R'); }
int link(const char *old, const char *new) { return do_rename(AT_FDCWD, old, AT_FDCWD, new, 'L'); }

int flock(int fd, int operation) {
    REAL(int, "flock", (int, int));
    if (!is_watched(fd)) return real(fd, operation);
    pthread_mutex_lock(&lock);
    int error = enter(LOCK, NULL);
    if (error) return failed(error);
    pthread_mutex_unlock(&lock);
    return real(fd, operation);
}

/* Watch files below `directory` (absolute, without links) from now on. `to`: descriptor of the record, or -1. */
void lab_arm(const char *directory, struct control *shared, int to) {
    snprintf(root, sizeof root, "%s", directory);
    root_bytes = strlen(root);
    record_to = to;
    control = shared;
}

/* Enter a remark, which has its place among the operations. */
void lab_mark(const char *text) {
    pthread_mutex_lock(&lock);
    record('M', -1, 0, text, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
}
