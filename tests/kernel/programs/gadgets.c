/* Known workloads of the trace gadgets. Prints "ready", waits for a line, does its work, prints one line of JSON about
 * it, waits for the end of its input. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char **arguments;
static int argument(int i) { return atoi(arguments[i]); }

static void fail(const char *what)
{
    fprintf(stderr, "gadgets: %s: %s\n", what, strerror(errno));
    exit(111);
}

static void must(int right, const char *what)
{
    if (!right)
        fail(what);
}

static void sleep_ms(int ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&t, NULL);
}

/* open DIR OPENAT OPEN OPENAT2 CREAT FAILED RELATIVE: opens of each kind that succeed, then ones that do not */
static void opens(void)
{
    char name[64];
    must(!chdir(arguments[0]), "chdir");
    int here = open(".", O_PATH | O_DIRECTORY);
    must(here >= 0, "open .");
    close(creat("made", 0600));
    for (int i = 0; i < argument(1); i++)
        must(!close(syscall(SYS_openat, AT_FDCWD, "made", O_RDONLY | O_CLOEXEC, 0)), "openat");
    for (int i = 0; i < argument(2); i++)
        must(!close(syscall(SYS_open, "made", O_RDWR | O_APPEND | O_SYNC, 0)), "open");
    struct open_how how = {.flags = O_WRONLY | O_CREAT, .mode = 0640, .resolve = RESOLVE_NO_SYMLINKS};
    for (int i = 0; i < argument(3); i++)
        must(!close(syscall(SYS_openat2, AT_FDCWD, "made by openat2", &how, sizeof(how))), "openat2");
    for (int i = 0; i < argument(4); i++)
        must(!close(syscall(SYS_creat, "made by creat", 0604)), "creat");
    for (int i = 0; i < argument(5); i++) {
        snprintf(name, sizeof(name), "/nonexistent/perfstream-%d", i);
        must(open(name, O_RDONLY) < 0 && errno == ENOENT, "failing open");
    }
    for (int i = 0; i < argument(6); i++)
        must(openat(here, "made", O_RDONLY | O_DIRECTORY) < 0 && errno == ENOTDIR, "relative open");
    printf("{\"directory_fd\": %d}\n", here);
}

/* flood OPENS: as fast as it goes; every second one fails */
static void flood(void)
{
    for (int i = 0; i < argument(0); i++) {
        int fd = open(i & 1 ? "/nonexistent" : "/dev/null", O_RDONLY | O_CLOEXEC);
        if (fd >= 0)
            close(fd);
    }
    printf("{}\n");
}

/* short PROCESSES: each execs this program, which ends at once; each is given a name in another way, or none */
static void shorts(void)
{
    static char big[6000], self[256], name[512], others[300][16];
    int count = argument(0);
    memset(big, 'x', sizeof(big) - 1);
    memcpy(big, "BIG=", 4);
    must(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0, "readlink");
    printf("{\"pids\": [");
    for (int i = 0; i < count; i++) {
        fflush(stdout);
        pid_t child = fork();
        if (!child) {
            char *environment[303] = {"PATH=/", name}, *bare[] = {"PATH=/", "OTEL_SERVICE_NAMES=no", "SECRET=x", NULL};
            if (i % 4 == 0) {
                snprintf(name, sizeof(name), "OTEL_SERVICE_NAME=short-%d", i);
            } else if (i % 4 == 1) {
                environment[0] = big;
                snprintf(name, sizeof(name),
                         "OTEL_RESOURCE_ATTRIBUTES=service.name=short-%d,service.version=v7,service.namespace=shop", i);
            } else if (i % 4 == 2) {
                for (int other = 0; other < 300; other++) {
                    snprintf(others[other], sizeof(others[other]), "V%d=%d", other, i);
                    environment[other] = others[other];
                }
                environment[300] = name;
                snprintf(name, sizeof(name), "PYROSCOPE_APPLICATION_NAME=short-%d{env=x}", i);
            }
            execle(self, "gadgets", (char *)NULL, i % 4 == 3 ? bare : environment);
            _exit(9);
        }
        int status;
        must(waitpid(child, &status, 0) == child && !status, "short");
        printf("%s%d", i ? ", " : "", child);
    }
    printf("]}\n");
}

/* signal SENT IGNORED FULL: queued to a child that waits, ignored by it, and more than its queue takes */
static void signals(void)
{
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGRTMIN);
    sigaddset(&blocked, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    signal(SIGUSR2, SIG_IGN);
    pid_t child = fork();
    if (!child)
        for (;;)
            pause();
    for (int i = 0; i < argument(0); i++)
        must(!sigqueue(child, SIGRTMIN, (union sigval){.sival_int = i}), "sigqueue");
    for (int i = 0; i < argument(1); i++)
        must(!syscall(SYS_tgkill, child, child, SIGUSR2), "tgkill");
    struct rlimit none = {0, 0};
    must(!prlimit(child, RLIMIT_SIGPENDING, &none, NULL), "prlimit");
    for (int i = 0; i < argument(2); i++)
        must(sigqueue(child, SIGRTMIN + 1, (union sigval){}) < 0 && errno == EAGAIN, "sigqueue of too many");
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    printf("{\"child\": %d}\n", child);
}

/* mount DIR MOUNTS FAILED MOVED: tmpfs mounted and unmounted, of a type that does not exist, and the newer calls */
static void mounts(void)
{
    char *at = arguments[0], inner[256];
    must(!unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), "mount namespace");
    for (int i = 0; i < argument(1); i++) {
        must(!mount("known", at, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=0700"), "mount");
        must(!umount2(at, MNT_DETACH), "umount");
    }
    for (int i = 0; i < argument(2); i++)
        must(mount("known", at, "nosuchfs", MS_RDONLY, NULL) < 0 && errno == ENODEV, "failing mount");
    must(umount2(at, 0) < 0 && errno == EINVAL, "failing umount");
    snprintf(inner, sizeof(inner), "%s/inner", at);
    must(!mkdir(inner, 0700), "mkdir");
    for (int i = 0; i < argument(3); i++) {
        int fs = syscall(SYS_fsopen, "tmpfs", 0);
        must(fs >= 0 && !syscall(SYS_fsconfig, fs, 6 /* FSCONFIG_CMD_CREATE */, NULL, NULL, 0), "fsopen");
        int made = syscall(SYS_fsmount, fs, 0, 2 /* MOUNT_ATTR_NOSUID */);
        must(made >= 0, "fsmount");
        must(!syscall(SYS_move_mount, made, "", AT_FDCWD, inner, 4 /* MOVE_MOUNT_F_EMPTY_PATH */), "move_mount");
        close(fs);
        close(made);
        must(!umount2(inner, 0), "umount of what was moved");
    }
    printf("{}\n");
}

/* bind TCP4 UDP6 ANY USED ELSEWHERE: addresses of each kind; one in use; one that is not ours. Not told: Unix sockets. */
static void binds(void)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0perfstream"};
    socklen_t size = sizeof(v4);
    int first = socket(AF_INET, SOCK_STREAM, 0), fd;
    must(!bind(first, (void *)&v4, sizeof(v4)) && !listen(first, 5), "bind");
    must(!getsockname(first, (void *)&v4, &size), "getsockname");
    printf("{\"port\": %d", ntohs(v4.sin_port));
    for (int i = 0; i < argument(1); i++) {
        size = sizeof(v6);
        v6.sin6_port = 0;
        fd = socket(AF_INET6, SOCK_DGRAM, 0);
        must(!bind(fd, (void *)&v6, sizeof(v6)) && !getsockname(fd, (void *)&v6, &size), "bind v6");
        printf(", \"udp%d\": %d", i, ntohs(v6.sin6_port));
        close(fd);
    }
    for (int i = 0; i < argument(3); i++) {
        fd = socket(AF_INET, SOCK_STREAM, 0);
        must(bind(fd, (void *)&v4, sizeof(v4)) < 0 && errno == EADDRINUSE, "bind in use");
        close(fd);
    }
    v4.sin_port = 0;
    for (int i = 0; i + 1 < argument(0); i++) {
        fd = socket(AF_INET, SOCK_STREAM, 0);
        must(!bind(fd, (void *)&v4, sizeof(v4)), "bind v4");
        close(fd);
    }
    v4.sin_addr.s_addr = INADDR_ANY;
    for (int i = 0; i < argument(2); i++) {
        fd = socket(AF_INET, SOCK_DGRAM, 0);
        must(!bind(fd, (void *)&v4, sizeof(v4)), "bind any");
        close(fd);
    }
    v4.sin_addr.s_addr = inet_addr("192.0.2.7");
    v4.sin_port = htons(4242);
    for (int i = 0; i < argument(4); i++) {
        fd = socket(AF_INET, SOCK_STREAM, 0);
        must(bind(fd, (void *)&v4, sizeof(v4)) < 0 && errno == EADDRNOTAVAIL, "bind elsewhere");
        close(fd);
    }
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    must(!bind(fd, (void *)&name, sizeof(name)), "bind unix");
    must(bind(-1, (void *)&v4, sizeof(v4)) < 0 && errno == EBADF, "bind of nothing");
    printf("}\n");
}

/* capable GRANTED REFUSED: chroot as root, then as nobody */
static void capable(void)
{
    for (int i = 0; i < argument(0); i++)
        must(!chroot("/"), "chroot");
    must(!setresuid(65534, 65534, 65534), "setresuid");
    for (int i = 0; i < argument(1); i++)
        must(chroot("/") < 0 && errno == EPERM, "chroot of nobody");
    printf("{}\n");
}

/* A file system whose "slow" takes MS for each open, read, write and fsync, and whose "fast" does not. */
static void serve(int fuse, int ms)
{
    static char in[1 << 17];
    static struct { struct fuse_out_header head; char body[1 << 16]; } out;
    for (ssize_t n; (n = read(fuse, in, sizeof(in))) > 0 || (n < 0 && errno == ENOENT);) {
        struct fuse_in_header *head = (void *)in;
        void *body = in + sizeof(*head);
        size_t size = 0;
        int error = 0;
        memset(out.body, 0, 256);
        struct fuse_attr attr = {.ino = head->nodeid, .mode = head->nodeid == 1 ? S_IFDIR | 0755 : S_IFREG | 0644,
                                 .nlink = 1, .size = 1 << 20};
        int slow = head->nodeid == 2;
        switch (head->opcode) {
        case FUSE_INIT: {
            struct fuse_init_in *asked = body;
            struct fuse_init_out *init = (void *)out.body;
            *init = (struct fuse_init_out){.major = 7, .minor = 31, .max_readahead = asked->max_readahead,
                                           .max_write = 1 << 16};
            size = sizeof(*init);
            break;
        }
        case FUSE_LOOKUP: {
            struct fuse_entry_out *entry = (void *)out.body;
            entry->nodeid = !strcmp(body, "slow") ? 2 : !strcmp(body, "fast") ? 3 : 0;
            attr.ino = entry->nodeid;
            attr.mode = S_IFREG | 0644;
            entry->attr = attr;
            entry->entry_valid = entry->attr_valid = 1000;
            error = entry->nodeid ? 0 : -ENOENT;
            size = error ? 0 : sizeof(*entry);
            break;
        }
        case FUSE_GETATTR: {
            struct fuse_attr_out *told = (void *)out.body;
            told->attr_valid = 1000;
            told->attr = attr;
            size = sizeof(*told);
            break;
        }
        case FUSE_OPEN:
            ((struct fuse_open_out *)out.body)->open_flags = FOPEN_DIRECT_IO;
            size = sizeof(struct fuse_open_out);
            if (slow)
                sleep_ms(ms);
            break;
        case FUSE_READ:
            size = ((struct fuse_read_in *)body)->size;
            if (slow)
                sleep_ms(ms);
            break;
        case FUSE_WRITE:
            ((struct fuse_write_out *)out.body)->size = ((struct fuse_write_in *)body)->size;
            size = sizeof(struct fuse_write_out);
            if (slow)
                sleep_ms(ms);
            break;
        case FUSE_FSYNC:
            error = slow ? -EIO : 0;
            if (slow)
                sleep_ms(ms);
            break;
        case FUSE_FORGET:
            continue;
        case FUSE_FLUSH:
        case FUSE_RELEASE:
            break;
        default:
            error = -ENOSYS;
        }
        out.head = (struct fuse_out_header){.len = sizeof(out.head) + size, .error = error, .unique = head->unique};
        if (write(fuse, &out, out.head.len) < 0 && errno != ENOENT)
            break;
    }
    _exit(0);
}

/* slow DIR MS OPENS READS WRITES FSYNCS: of a slow file; twice as many of a fast one, and of a pipe that is as slow */
static void slows(void)
{
    char options[64], page[4096] = {0}, path[2][256];
    int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC), ms = argument(1), pipes[2];
    must(fuse >= 0, "/dev/fuse");
    must(!unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), "mount namespace");
    snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
    must(!mount("known", arguments[0], "fuse", 0, options) && !pipe(pipes), "mount of fuse");
    pid_t child = fork();
    if (!child)
        serve(fuse, ms);
    close(fuse);
    snprintf(path[0], sizeof(path[0]), "%s/slow", arguments[0]);
    snprintf(path[1], sizeof(path[1]), "%s/fast", arguments[0]);
    must(!mkdir("/dev/null/x", 0) || errno == ENOTDIR, "mkdir");
    for (int fast = 0; fast < 2; fast++) {
        int fd = -1, times = fast + 1;
        struct iovec vector = {page, 600};
        for (int i = 0; i < argument(2) * times; i++) {
            close(fd);
            must((fd = open(path[fast], O_RDWR)) >= 0, path[fast]);
        }
        for (int i = 0; i < argument(3) * times; i++)
            must((i & 1 ? read(fd, page, 600) : preadv(fd, &vector, 1, 512)) == 600, "read");
        for (int i = 0; i < argument(4) * times; i++)
            must((i & 1 ? pwrite(fd, page, 400, 0) : write(fd, page, 400)) == 400, "write");
        for (int i = 0; i < argument(5) * times; i++)
            must((i & 1 ? fdatasync(fd) : fsync(fd)) == (fast ? 0 : -1), "fsync");
        close(fd);
    }
    pid_t late = fork();
    if (!late) {
        sleep_ms(ms);
        _exit(write(pipes[1], "x", 1) != 1);
    }
    must(read(pipes[0], page, 1) == 1, "read of a pipe");
    waitpid(late, NULL, 0);
    must(!umount2(arguments[0], MNT_DETACH), "umount");
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    printf("{}\n");
}

#include "verbs.h"

int main(int count, char **words)
{
    static const struct verb verbs[] = {
        {"open", opens}, {"flood", flood}, {"signal", signals}, {"mount", mounts}, {"bind", binds},
        {"capable", capable}, {"slow", slows}, {"short", shorts},
    };
    return run_verb(verbs, sizeof(verbs) / sizeof(*verbs), count, words);
}
