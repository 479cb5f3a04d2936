// Loaded before everything else in the service's process: a clock that jumps, and a disk that is slow, full or read-only.
//
// What it does now stands in a file of four numbers that CHAOS_FAULTS names and both sides map: seconds that the wall clock is ahead,
// milliseconds that a flush to disk takes longer, and the errno that writes and flushes of the store end with. Logs are written with
// write(), which is left alone.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct Faults {
    int64_t ahead, delay, error, unused;
};

static volatile struct Faults* faults;

__attribute__((constructor)) static void begin(void) {
    const char* name = getenv("CHAOS_FAULTS");
    const int file = name ? open(name, O_RDWR) : -1;
    if (file < 0) return;
    void* there = mmap(NULL, sizeof(struct Faults), PROT_READ, MAP_SHARED, file, 0);
    if (there != MAP_FAILED) faults = there;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec* at) {
    const int status = (int)syscall(SYS_clock_gettime, clock, at);
    if (!status && faults && clock == CLOCK_REALTIME) at->tv_sec += faults->ahead;
    return status;
}

int gettimeofday(struct timeval* restrict at, void* restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t* at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

static int refused(void) {
    if (!faults || !faults->error) return 0;
    errno = (int)faults->error;
    return 1;
}

ssize_t pwrite(int file, const void* data, size_t size, off_t at) { return refused() ? -1 : syscall(SYS_pwrite64, file, data, size, at); }
ssize_t pwrite64(int file, const void* data, size_t size, off64_t at) { return refused() ? -1 : syscall(SYS_pwrite64, file, data, size, at); }

static int flush(long call, int file) {
    if (refused()) return -1;
    if (faults && faults->delay) {
        const struct timespec late = {faults->delay / 1000, faults->delay % 1000 * 1000000};
        nanosleep(&late, NULL);
    }
    return (int)syscall(call, file);
}

int fsync(int file) { return flush(SYS_fsync, file); }
int fdatasync(int file) { return flush(SYS_fdatasync, file); }
