/* The known workload of `make demo`. Each mode does a counted amount of one thing and prints what it did as one
 * JSON line, so that the measurement has a truth to be held against.
 *
 *   burn SECONDS              CPU in burn_five : burn_three : burn_two = 5 : 3 : 2
 *   contend SECONDS           spins; two of these on one CPU wait for each other
 *   exec COUNT PATH           runs PATH that many times, one after the other
 *   connect COUNT REFUSED SECONDS
 *                             that many TCP connects on loopback, REFUSED of them to a port nobody listens on, spread
 *                             over SECONDS: a program that ends at once may be gone before its name is read
 *   write COUNT FILE          that many synchronous 64 KiB writes
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static volatile uint64_t sink;

static double now(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* The three are separate copies, so that the time is spent in them and not in a shared helper. */
#define BURNER(name, units)                                                  \
	__attribute__((noinline)) void name(void)                            \
	{                                                                    \
		uint64_t x = sink + 1;                                       \
		for (uint64_t i = 0; i < (units) * 400000ULL; i++)           \
			x = x * 6364136223846793005ULL + 1442695040888963407ULL; \
		sink = x;                                                    \
	}
BURNER(burn_five, 5)
BURNER(burn_three, 3)
BURNER(burn_two, 2)

__attribute__((noinline)) void burn_round(void)
{
	burn_five();
	burn_three();
	burn_two();
	sink++; /* keeps the calls above from becoming tail calls */
}

static void burn(double seconds)
{
	double end = now(CLOCK_MONOTONIC) + seconds;
	uint64_t rounds = 0;
	while (now(CLOCK_MONOTONIC) < end) {
		burn_round();
		rounds++;
	}
	printf("{\"mode\": \"burn\", \"rounds\": %llu, \"cpu_s\": %.3f}\n", (unsigned long long)rounds,
	       now(CLOCK_PROCESS_CPUTIME_ID));
}

static void contend(double seconds)
{
	double end = now(CLOCK_MONOTONIC) + seconds;
	uint64_t naps = 0;
	struct timespec nap = {0, 1000000};
	/* Short naps make it wake up again and again while the other one spins: each time it waits in the run queue. */
	while (now(CLOCK_MONOTONIC) < end) {
		for (uint64_t i = 0; i < 2000000; i++)
			sink += i;
		nanosleep(&nap, NULL);
		naps++;
	}
	printf("{\"mode\": \"contend\", \"naps\": %llu, \"cpu_s\": %.3f}\n", (unsigned long long)naps,
	       now(CLOCK_PROCESS_CPUTIME_ID));
}

static int run_many(long count, char *path)
{
	char *const argv[] = {path, NULL};
	for (long i = 0; i < count; i++) {
		pid_t pid;
		int status;
		if (posix_spawn(&pid, path, NULL, NULL, argv, environ) != 0 || waitpid(pid, &status, 0) != pid)
			return 1;
	}
	printf("{\"mode\": \"exec\", \"execs\": %ld}\n", count);
	return 0;
}

static int connect_many(long count, long refused, double seconds)
{
	long gap_ns = (long)(seconds * 1e9 / count);
	struct timespec gap = {gap_ns / 1000000000, gap_ns % 1000000000};
	struct sockaddr_in open_at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in shut_at = open_at;
	socklen_t size = sizeof(open_at);
	int server = socket(AF_INET, SOCK_STREAM, 0), shut = socket(AF_INET, SOCK_STREAM, 0);
	long made = 0, denied = 0;
	if (bind(server, (void *)&open_at, size) || listen(server, 64) || getsockname(server, (void *)&open_at, &size))
		return 1;
	/* Bound but not listening: nobody else gets the port, and connects to it are refused. */
	if (bind(shut, (void *)&shut_at, size) || getsockname(shut, (void *)&shut_at, &size))
		return 1;
	for (long i = 0; i < count; i++) {
		int client = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(client, (void *)(i < refused ? &shut_at : &open_at), size) == 0) {
			close(accept(server, NULL, NULL));
			made++;
		} else if (errno == ECONNREFUSED) {
			denied++;
		}
		close(client);
		nanosleep(&gap, NULL);
	}
	printf("{\"mode\": \"connect\", \"connects\": %ld, \"established\": %ld, \"refused\": %ld}\n", count, made, denied);
	return made + denied == count ? 0 : 1;
}

static int write_many(long count, const char *path)
{
	static char block[65536];
	int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_DSYNC, 0600);
	if (fd < 0)
		return 1;
	for (long i = 0; i < count; i++) {
		memset(block, (int)i, sizeof(block));
		if (write(fd, block, sizeof(block)) != sizeof(block))
			return 1;
	}
	close(fd);
	unlink(path);
	printf("{\"mode\": \"write\", \"writes\": %ld}\n", count);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "burn"))
		return burn(atof(argv[2])), 0;
	if (argc == 3 && !strcmp(argv[1], "contend"))
		return contend(atof(argv[2])), 0;
	if (argc == 4 && !strcmp(argv[1], "exec"))
		return run_many(atol(argv[2]), argv[3]);
	if (argc == 5 && !strcmp(argv[1], "connect") && atol(argv[2]) > 0)
		return connect_many(atol(argv[2]), atol(argv[3]), atof(argv[4]));
	if (argc == 4 && !strcmp(argv[1], "write"))
		return write_many(atol(argv[2]), argv[3]);
	fprintf(stderr, "usage: workload burn|contend SECONDS | exec COUNT PATH | connect COUNT REFUSED SECONDS | write COUNT FILE\n");
	return 2;
}
