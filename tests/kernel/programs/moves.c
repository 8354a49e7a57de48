/* Known workloads of the top, snapshot and futex gadgets. Prints "ready", waits for a line, does its work, prints one
 * line of JSON about it, waits for the end of its input. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long long u64;
static char **arguments;
static int argument(int i) { return atoi(arguments[i]); }

static u64 now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static void fail(const char *what)
{
    fprintf(stderr, "moves: %s: %s\n", what, strerror(errno));
    exit(111);
}

static void must(long is, long wanted, const char *what)
{
    if (is != wanted)
        fail(what);
}

/* files PATH TIMES: each of TIMES turns writes 3 times (write 10, pwrite 20, writev 30 bytes), reads 3 times (the same),
 * copies 7 bytes to PATH.copy by copy_file_range and 5 by sendfile; and does what must not count: reads at the end,
 * a failing read, a pipe. */
static void files(void)
{
    char bytes[64], copy[4096];
    memset(bytes, 'x', sizeof(bytes));
    snprintf(copy, sizeof(copy), "%s.copy", arguments[0]);
    int fd = open(arguments[0], O_RDWR | O_CREAT | O_TRUNC, 0600), to = open(copy, O_RDWR | O_CREAT | O_TRUNC, 0600);
    int pipes[2];
    if (fd < 0 || to < 0 || pipe(pipes))
        fail(arguments[0]);
    struct iovec vector[2] = {{bytes, 10}, {bytes, 20}};
    for (int i = 0; i < argument(1); i++) {
        must(lseek(fd, 0, SEEK_SET), 0, "lseek");
        must(write(fd, bytes, 10), 10, "write");
        must(pwrite(fd, bytes, 20, 10), 20, "pwrite");
        must(writev(fd, vector, 2), 30, "writev");
        must(lseek(fd, 0, SEEK_SET), 0, "lseek");
        must(read(fd, bytes, 10), 10, "read");
        must(pread(fd, bytes, 20, 10), 20, "pread");
        must(readv(fd, vector, 2), 30, "readv");
        must(read(fd, bytes, 10), 0, "read at the end");
        must(read(-1, bytes, 10), -1, "read of nothing");
        must(write(pipes[1], bytes, 10), 10, "pipe");
        must(read(pipes[0], bytes, 10), 10, "pipe");
        loff_t from = 0;
        must(copy_file_range(fd, &from, to, NULL, 7, 0), 7, "copy_file_range");
        off_t at = 0;
        must(sendfile(to, fd, &at, 5), 5, "sendfile");
    }
    printf("{\"turns\": %d}\n", argument(1));
}

static void pass(int from, int to, char *bytes, int size)
{
    must(send(from, bytes, size, 0), size, "send");
    must(recv(to, bytes, size, MSG_PEEK | MSG_WAITALL), size, "peek");
    must(recv(to, bytes, size, MSG_WAITALL), size, "recv");
}

/* tcp FAMILY TIMES SIZE BACK: a connection to itself, TIMES messages of SIZE bytes one way and as many of BACK bytes the
 * other; everything is peeked at first. Then listens on another port, and leaves both open. */
static void tcp(void)
{
    static char bytes[65536];
    int six = argument(0) == 6, family = six ? AF_INET6 : AF_INET;
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr *at = six ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
    socklen_t size = six ? sizeof(v6) : sizeof(v4);
    int server = socket(family, SOCK_STREAM, 0), client = socket(family, SOCK_STREAM, 0);
    int udp = socket(family, SOCK_DGRAM, 0);
    if (bind(server, at, size) || listen(server, 5) || bind(udp, at, size) || getsockname(server, at, &size))
        fail("listen");
    int port = ntohs(six ? v6.sin6_port : v4.sin_port);
    if (connect(client, at, size))
        fail("connect");
    int other = accept(server, NULL, NULL);
    for (int i = 0; i < argument(1); i++) {
        pass(client, other, bytes, argument(2));
        pass(other, client, bytes, argument(3));
    }
    if (getsockname(client, at, &size))
        fail("getsockname");
    int client_port = ntohs(six ? v6.sin6_port : v4.sin_port);
    if (getsockname(udp, at, &size))
        fail("getsockname");
    printf("{\"port\": %d, \"client_port\": %d, \"udp_port\": %d}\n", port, client_port,
           ntohs(six ? v6.sin6_port : v4.sin_port));
}

/* calls GOOD BAD */
static void calls(void)
{
    u64 began = now();
    for (int i = 0; i < argument(0); i++)
        syscall(SYS_getppid);
    for (int i = 0; i < argument(1); i++)
        must(close(-1), -1, "close");
    printf("{\"took_ns\": %llu}\n", now() - began);
}

/* work MS SWITCHES PATH BYTES: CPU time, voluntary switches, and bytes that reach the disk */
static void work(void)
{
    struct timespec t;
    do {
        for (volatile int i = 0; i < 100000; i++)
            ;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    } while (t.tv_sec * 1000 + t.tv_nsec / 1000000 < argument(0));
    for (int i = 0; i < argument(1); i++)
        nanosleep(&(struct timespec){0, 100000}, NULL);
    int fd = open(arguments[2], O_WRONLY | O_CREAT | O_TRUNC, 0600), size = argument(3);
    char *bytes = calloc(1, size);
    must(write(fd, bytes, size), size, "write");
    must(fsync(fd), 0, "fsync");
    printf("{}\n");
}

static unsigned word, turn;
static int futex(unsigned *at, int op, unsigned value, struct timespec *timeout)
{
    return syscall(SYS_futex, at, op | FUTEX_PRIVATE_FLAG, value, timeout, NULL, ~0U);
}

static void *wait_often(void *times)
{
    for (int i = 0; i < *(int *)times; i++) {
        __atomic_store_n(&turn, i + 1, __ATOMIC_RELEASE);
        must(futex(&word, FUTEX_WAIT, 0, NULL), 0, "wait");
    }
    return NULL;
}

/* futex WOKEN TIMED_OUT CHANGED NS: waits of at least NS that are woken, or time out after NS; and of another value */
static void futexes(void)
{
    int woken = argument(0);
    struct timespec wait = {0, argument(3)};
    pthread_t thread;
    pthread_create(&thread, NULL, wait_often, &woken);
    for (int i = 0; i < woken; i++) {
        while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != (unsigned)i + 1)
            ;
        nanosleep(&wait, NULL);
        while (futex(&word, FUTEX_WAKE, 1, NULL) != 1)
            ;
    }
    /* Not joined yet: the thread's end is itself waited for by a futex. */
    u64 began = now();
    for (int i = 0; i < argument(1); i++) {
        unsigned nobody = 0;
        must(futex(&nobody, FUTEX_WAIT, 0, &wait), -1, "wait for nobody");
    }
    u64 took = now() - began;
    for (int i = 0; i < argument(2); i++) {
        struct timespec absolute = {1, 0};
        must(futex(&word, FUTEX_WAIT_BITSET, 1, &absolute), -1, "wait for another value");
    }
    printf("{\"timed_out_ns\": %llu}\n", took);
}

static void *sit(void *nothing)
{
    pause();
    return nothing;
}

/* threads COUNT: that do nothing */
static void threads(void)
{
    pthread_t thread;
    for (int i = 0; i < argument(0); i++)
        pthread_create(&thread, NULL, sit, NULL);
    printf("{}\n");
}

#include "verbs.h"

int main(int count, char **words)
{
    static const struct verb verbs[] = {
        {"files", files}, {"tcp", tcp}, {"calls", calls}, {"work", work}, {"futex", futexes}, {"threads", threads},
    };
    return run_verb(verbs, sizeof(verbs) / sizeof(*verbs), count, words);
}
