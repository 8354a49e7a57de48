/* Known workloads. Prints "ready", waits for a line, does its work, prints one line of JSON about it, waits for the end
 * of its input. Built by the tests with frame pointers. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))
typedef unsigned long long u64;
static char **arguments;
static int argument(int i) { return atoi(arguments[i]); }

static u64 clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static void sleep_ns(u64 ns)
{
    struct timespec t = {ns / 1000000000ULL, ns % 1000000000ULL};
    nanosleep(&t, NULL);
}

static void fail(const char *what)
{
    fprintf(stderr, "known: %s: %s\n", what, strerror(errno));
    exit(111);
}

/* exec RUNS FAILING: so many children; the failing ones exec a path that does not exist and end with code 7. */
static void execs(void)
{
    int runs = argument(0), failing = argument(1);
    for (int i = 0; i < runs; i++) {
        pid_t child = fork();
        if (child < 0)
            fail("fork");
        if (!child) {
            char *path = i < failing ? "/nonexistent/perfstream" : "/proc/self/exe";
            execl(path, "known", "nothing", (char *)NULL);
            _exit(7);
        }
        waitpid(child, NULL, 0);
    }
    printf("{\"runs\": %d, \"failed\": %d}\n", runs, failing);
}

/* reuse TIMES: processes that end by themselves, one after another, all with the same number */
static void reuse(void)
{
    pid_t same = fork();
    for (int i = 0; i < argument(0); i++) {
        if (!same)
            _exit(0);
        waitpid(same, NULL, 0);
        struct clone_args how = {.exit_signal = SIGCHLD, .set_tid = (u64)&same, .set_tid_size = 1};
        pid_t child = syscall(SYS_clone3, &how, sizeof(how));
        if (child < 0)
            fail("clone3");
        if (!child)
            _exit(0);
    }
    waitpid(same, NULL, 0);
    printf("{}\n");
}

/* flood EXECS: all fail, as fast as it goes */
static void flood(void)
{
    for (int i = 0; i < argument(0); i++)
        execl("/nonexistent/perfstream", "known", (char *)NULL);
    printf("{}\n");
}

static void *spin_until(void *flag)
{
    while (!__atomic_load_n((int *)flag, __ATOMIC_ACQUIRE))
        ;
    return NULL;
}

/* exit CODES KILLED MANY THREADS: children that end with code 3, by SIGKILL, and with all their threads at once. */
static void exits(void)
{
    int codes = argument(0), killed = argument(1), many = argument(2), threads = argument(3);
    for (int i = 0; i < codes + killed + many; i++) {
        pid_t child = fork();
        if (!child) {
            static int go;
            pthread_t each;
            if (i < codes)
                _exit(3);
            if (i < codes + killed)
                kill(getpid(), SIGKILL);
            for (int t = 0; t < threads; t++)
                pthread_create(&each, NULL, spin_until, &go);
            _exit(5);
        }
        waitpid(child, NULL, 0);
    }
    printf("{\"exits\": %d}\n", codes + killed + many);
}

union address { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; };

static int listening(int family, union address *at, socklen_t *size)
{
    memset(at, 0, sizeof(*at));
    at->any.sa_family = family;
    *size = family == AF_INET ? sizeof(at->v4) : sizeof(at->v6);
    if (family == AF_INET)
        at->v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
        at->v6.sin6_addr = in6addr_loopback;
    int fd = socket(family, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, &at->any, *size) || listen(fd, 512) || getsockname(fd, &at->any, size))
        fail("listen");
    return fd;
}

static int connect_all(int count, int refused, const union address *to, socklen_t size)
{
    for (int i = 0; i < count; i++) {
        int fd = socket(to->any.sa_family, SOCK_STREAM, 0);
        int failed = connect(fd, &to->any, size);
        if (refused ? !failed || errno != ECONNREFUSED : failed)
            fail("connect");
        if (refused)
            close(fd);
    }
    return count;
}

/* tcp V4 V6 REFUSED4 REFUSED6 WAIT_MS NONE_LEFT: connects to itself, waits, accepts; then accepts without descriptors. */
static void tcp(void)
{
    union address v4, v6, closed4, closed6;
    socklen_t size4, size6;
    close(listening(AF_INET, &closed4, &size4));
    close(listening(AF_INET6, &closed6, &size6));
    int server4 = listening(AF_INET, &v4, &size4), server6 = listening(AF_INET6, &v6, &size6);
    u64 began = clock_ns(CLOCK_MONOTONIC);
    connect_all(argument(0), 0, &v4, size4);
    connect_all(argument(1), 0, &v6, size6);
    connect_all(argument(2), 1, &closed4, size4);
    connect_all(argument(3), 1, &closed6, size6);
    sleep_ns(argument(4) * 1000000ULL);
    for (int i = 0; i < argument(0); i++)
        close(accept(server4, NULL, NULL));
    for (int i = 0; i < argument(1); i++)
        close(accept4(server6, NULL, NULL, SOCK_CLOEXEC));
    fcntl(server4, F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 5; i++)
        if (accept(server4, NULL, NULL) >= 0 || errno != EAGAIN)
            fail("accept of nothing");
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_NOFILE, &none);
    for (int i = 0; i < argument(5); i++)
        if (accept(server4, NULL, NULL) >= 0 || errno != EMFILE)
            fail("accept without descriptors");
    printf("{\"port4\": %d, \"port6\": %d, \"closed4\": %d, \"closed6\": %d, \"took_ns\": %llu}\n", ntohs(v4.v4.sin_port),
           ntohs(v6.v6.sin6_port), ntohs(closed4.v4.sin_port), ntohs(closed6.v6.sin6_port),
           clock_ns(CLOCK_MONOTONIC) - began);
}

/* calls SLEEPS SLEEP_NS GETPPIDS */
static void calls(void)
{
    u64 began = clock_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < argument(0); i++)
        sleep_ns(argument(1));
    u64 slept = clock_ns(CLOCK_MONOTONIC) - began;
    for (int i = 0; i < argument(2); i++)
        syscall(SYS_getppid);
    printf("{\"slept_ns\": %llu}\n", slept);
}

/* write DEVICE COUNT: O_DIRECT and O_DSYNC, 4 KiB each, then one read of each */
static void writes(void)
{
    void *page;
    int fd = open(arguments[0], O_RDWR | O_DIRECT | O_DSYNC), count = argument(1);
    if (fd < 0 || posix_memalign(&page, 4096, 4096))
        fail(arguments[0]);
    memset(page, 'x', 4096);
    u64 began = clock_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < count; i++)
        if (pwrite(fd, page, 4096, i * 4096L) != 4096)
            fail("write");
    u64 took = clock_ns(CLOCK_MONOTONIC) - began;
    for (int i = 0; i < count; i++)
        if (pread(fd, page, 4096, i * 4096L) != 4096)
            fail("read");
    printf("{\"took_ns\": %llu}\n", took);
}

static void burn_for(u64 ns)
{
    u64 end = clock_ns(CLOCK_THREAD_CPUTIME_ID) + ns;
    volatile unsigned x = 1;
    while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < end)
        for (int i = 0; i < 20000; i++)
            x = x * 1664525 + 1013904223;
}
static NOINLINE void five(u64 unit) { burn_for(5 * unit); __asm__ volatile("" ::: "memory"); }
static NOINLINE void three(u64 unit) { burn_for(3 * unit); __asm__ volatile("" ::: "memory"); }
static NOINLINE void two(u64 unit) { burn_for(2 * unit); __asm__ volatile("" ::: "memory"); }

/* burn MS: CPU time in five(), three() and two(), 5:3:2, in turns of uneven length */
static void burn(void)
{
    u64 end = clock_ns(CLOCK_THREAD_CPUTIME_ID) + argument(0) * 1000000ULL, turn = 0;
    while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < end) {
        u64 unit = 700000 + (turn++ * 7919) % 600000;
        five(unit);
        three(unit);
        two(unit);
    }
    printf("{\"cpu_ns\": %llu}\n", clock_ns(CLOCK_PROCESS_CPUTIME_ID));
}

static NOINLINE void wait_long(void) { sleep_ns(20000000); __asm__ volatile("" ::: "memory"); }
/* A library's function without a frame hides its caller from a walk by frame pointers: so one more stands between. */
static NOINLINE int answer_of(int in)
{
    char byte;
    return read(in, &byte, 1);
}
static NOINLINE void wait_pipe(int in, int out)
{
    if (write(out, "", 1) != 1 || answer_of(in) != 1)
        fail("pipe");
    __asm__ volatile("" ::: "memory");
}
static NOINLINE void wait_short(void) { sleep_ns(50000); __asm__ volatile("" ::: "memory"); }

/* waits LONG PIPE SHORT: sleeps of 20 ms, answers of a child that takes 5 ms for each, sleeps of 50 microseconds */
static void waits(void)
{
    int there[2], back[2];
    char byte;
    if (pipe(there) || pipe(back))
        fail("pipe");
    pid_t child = fork();
    if (!child) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1) {
            sleep_ns(5000000);
            if (write(back[1], &byte, 1) != 1)
                break;
        }
        _exit(0);
    }
    u64 at = clock_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < argument(0); i++)
        wait_long();
    u64 slept = clock_ns(CLOCK_MONOTONIC) - at;
    at = clock_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < argument(1); i++)
        wait_pipe(back[0], there[1]);
    u64 piped = clock_ns(CLOCK_MONOTONIC) - at;
    for (int i = 0; i < argument(2); i++)
        wait_short();
    close(there[1]);
    waitpid(child, NULL, 0);
    printf("{\"slept_ns\": %llu, \"piped_ns\": %llu}\n", slept, piped);
}

static NOINLINE u64 deep(int depth, u64 ns)
{
    if (depth > 0)
        return deep(depth - 1, ns) + 1;
    ns ? sleep_ns(ns) : burn_for(3000000);
    return 0;
}
/* deep STACKS NS: one stack for each depth; sleeps NS in it, or burns 3 ms when NS is 0 */
static void deeps(void)
{
    u64 sum = 0;
    for (int i = 0; i < argument(0); i++)
        sum += deep(i % 100, argument(1));
    printf("{\"sum\": %llu}\n", sum);
}

/* contend PROCESSES MS: spinners on one CPU, each stopped by itself at the end, so that its counters stand still */
static void contend(void)
{
    unsigned long first = 1;
    syscall(SYS_sched_setaffinity, 0, sizeof(first), &first);
    printf("{\"pids\": [");
    for (int i = 0; i < argument(0); i++) {
        fflush(stdout);
        pid_t child = fork();
        if (!child) {
            burn_for(argument(1) * 1000000ULL);
            raise(SIGSTOP);
            _exit(0);
        }
        printf("%s%d", i ? ", " : "", child);
    }
    for (int i = 0; i < argument(0); i++)
        waitpid(-1, NULL, WUNTRACED);
    printf("]}\n");
}

/* eat MB: takes and touches memory until it is killed; the child does, the parent tells how it ended */
static void eat(void)
{
    pid_t child = fork();
    int status;
    if (!child) {
        for (int i = 0; i < argument(0); i++)
            memset(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 1, 1 << 20);
        _exit(0);
    }
    waitpid(child, &status, 0);
    printf("{\"victim\": %d, \"status\": %d}\n", child, status);
}

#include "verbs.h"

int main(int count, char **words)
{
    static const struct verb verbs[] = {
        {"exec", execs}, {"exit", exits}, {"reuse", reuse}, {"flood", flood}, {"tcp", tcp}, {"calls", calls}, {"write", writes}, {"burn", burn},
        {"waits", waits}, {"deep", deeps}, {"contend", contend}, {"eat", eat},
    };
    return run_verb(verbs, sizeof(verbs) / sizeof(*verbs), count, words);
}
