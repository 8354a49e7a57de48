// 7 parts of the work in seven_parts, 3 in three_parts: the same loop, so the shares are known without a clock.
// A turn is long against the time between two samples, so that chance decides little.
#include <stdint.h>
#include <stdio.h>

static volatile uint64_t sink;

static inline __attribute__((always_inline)) void spin(int parts)
{
	uint64_t x = sink;
	for (long i = 0; i < parts * 2000000L; i++)
		x = x * 6364136223846793005u + 1442695040888963407u;
	sink = x;
}

__attribute__((noinline)) void seven_parts(void) { spin(7); }
__attribute__((noinline)) void three_parts(void) { spin(3); }

int main(void)
{
	puts("ready");
	fflush(stdout);
	getchar();
	for (int i = 0; i < ROUNDS; i++) {
		seven_parts();
		three_parts();
	}
	puts("{}");
	fflush(stdout);
	while (getchar() != EOF)
		;
	return 0;
}
