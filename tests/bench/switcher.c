/* A reference load: keeps one CPU busy and switches contexts about RATE times a second on it.
 * Two threads on one CPU hand a token back and forth through pipes (two switches a round); between rounds the
 * first one spins so that the CPU stays busy. Usage: switcher CPU RATE SECONDS; prints the rounds it made. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int there[2], back[2];

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void *echo(void *unused)
{
	char token;
	while (read(there[0], &token, 1) == 1)
		if (write(back[1], &token, 1) != 1)
			break;
	return unused;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(atoi(argv[1]), &set);
	if (sched_setaffinity(0, sizeof(set), &set) || pipe(there) || pipe(back))
		return 1;
	pthread_t thread;
	pthread_create(&thread, NULL, echo, NULL);
	double rounds_per_s = atof(argv[2]) / 2, begin = now(), end = begin + atof(argv[3]);
	uint64_t rounds = 0;
	char token = 0;
	for (double t = begin; t < end; t = now()) {
		if (rounds >= (t - begin) * rounds_per_s)
			continue; /* spin until the next round is due */
		if (write(there[1], &token, 1) != 1 || read(back[0], &token, 1) != 1)
			return 1;
		rounds++;
	}
	printf("%llu\n", (unsigned long long)rounds);
	return 0;
}
