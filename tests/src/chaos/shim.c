/* Preloaded into brokers and workers (LD_PRELOAD): a disk that is slow or full, and a clock that is wrong, as a file says that the
   suite writes (tests/src/chaos/shim.rs) and that is mapped here. Only files below CHAOS_DIRECTORY are concerned; the clock is that of
   the whole process. Linux only. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    volatile int64_t clock_ms; /* how far the wall clock is ahead */
    volatile int64_t is_full;  /* no write succeeds */
    volatile int64_t write_us; /* how long a write takes in addition */
    volatile int64_t sync_us;  /* how long a sync takes in addition */
};

static const struct control nothing;
static const struct control *control = &nothing;
static const char *directory;
static size_t directory_length;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CHAOS_CONTROL");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    directory = getenv("CHAOS_DIRECTORY");
    directory_length = directory ? strlen(directory) : 0;
    if (mapped != MAP_FAILED) control = mapped;
}

/* The function that this one stands before. */
#define NEXT(name)                                              \
    static __typeof__(&name) next;                              \
    if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int concerns(int file) {
    char link[64], path[PATH_MAX];
    if (!directory_length) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path);
    return length > (ssize_t)directory_length && !memcmp(path, directory, directory_length);
}

static void pause_us(int64_t us) {
    struct timespec rest = {us / 1000000, us % 1000000 * 1000};
    while (nanosleep(&rest, &rest) && errno == EINTR) {}
}

/* Whether a write may go on; a full disk takes no more. */
static int may_write(int file) {
    if ((!control->is_full && !control->write_us) || !concerns(file)) return 1;
    if (control->write_us) pause_us(control->write_us);
    if (control->is_full) errno = ENOSPC;
    return !control->is_full;
}

static void may_sync(int file) {
    if (control->sync_us && concerns(file)) pause_us(control->sync_us);
}

ssize_t write(int file, const void *bytes, size_t count) {
    NEXT(write);
    return may_write(file) ? next(file, bytes, count) : -1;
}

ssize_t writev(int file, const struct iovec *pieces, int count) {
    NEXT(writev);
    return may_write(file) ? next(file, pieces, count) : -1;
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) {
    NEXT(pwrite);
    return may_write(file) ? next(file, bytes, count, offset) : -1;
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) {
    NEXT(pwrite64);
    return may_write(file) ? next(file, bytes, count, offset) : -1;
}

ssize_t pwritev(int file, const struct iovec *pieces, int count, off_t offset) {
    NEXT(pwritev);
    return may_write(file) ? next(file, pieces, count, offset) : -1;
}

/* Java makes its index files longer with it. Shorter ones need no room. */
static int may_resize(int file, int64_t length) {
    struct stat found;
    return fstat(file, &found) || found.st_size >= length || may_write(file);
}

int ftruncate(int file, off_t length) {
    NEXT(ftruncate);
    return may_resize(file, length) ? next(file, length) : -1;
}

int ftruncate64(int file, off64_t length) {
    NEXT(ftruncate64);
    return may_resize(file, length) ? next(file, length) : -1;
}

int fallocate(int file, int mode, off_t offset, off_t length) {
    NEXT(fallocate);
    return may_write(file) ? next(file, mode, offset, length) : -1;
}

int posix_fallocate(int file, off_t offset, off_t length) {
    NEXT(posix_fallocate);
    return may_write(file) ? next(file, offset, length) : ENOSPC;
}

int fsync(int file) {
    NEXT(fsync);
    may_sync(file);
    return next(file);
}

int fdatasync(int file) {
    NEXT(fdatasync);
    may_sync(file);
    return next(file);
}

static void shift(int64_t *seconds, long *nanos) {
    int64_t total = *nanos + control->clock_ms % 1000 * 1000000;
    *seconds += control->clock_ms / 1000;
    if (total < 0) { total += 1000000000; *seconds -= 1; }
    if (total >= 1000000000) { total -= 1000000000; *seconds += 1; }
    *nanos = total;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    NEXT(clock_gettime);
    int outcome = next(clock, now);
    if (!outcome && control->clock_ms && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t seconds = now->tv_sec;
        shift(&seconds, &now->tv_nsec);
        now->tv_sec = seconds;
    }
    return outcome;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec found;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &found)) return -1;
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec found;
    if (clock_gettime(CLOCK_REALTIME, &found)) return -1;
    if (where) *where = found.tv_sec;
    return found.tv_sec;
}
