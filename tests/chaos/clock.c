/*
 * Moves the wall clock of one process: preloaded, it adds what stands in a file of eight bytes (nanoseconds, signed, in
 * the byte order of the machine) to every answer of clock_gettime(CLOCK_REALTIME). The file is mapped, so a change
 * takes effect at once. Other clocks are left alone, as they are when somebody sets a machine's clock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int (*next)(clockid_t, struct timespec *);
static volatile int64_t *offset_ns;

__attribute__((constructor)) static void prepare(void)
{
    next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (page == MAP_FAILED || next == NULL)
        abort();
    offset_ns = page;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    if (next == NULL)
        prepare();
    int status = next(clock, time);
    if (status == 0 && clock == CLOCK_REALTIME) {
        int64_t ns = time->tv_nsec + *offset_ns % 1000000000;
        time->tv_sec += *offset_ns / 1000000000;
        if (ns < 0) {
            ns += 1000000000;
            time->tv_sec -= 1;
        } else if (ns >= 1000000000) {
            ns -= 1000000000;
            time->tv_sec += 1;
        }
        time->tv_nsec = ns;
    }
    return status;
}
