// As split.c, in methods of a class template.
#include <cstdint>
#include <cstdio>

namespace work {
volatile uint64_t sink;

template <int Parts> struct Share {
	__attribute__((noinline)) static void spin()
	{
		uint64_t x = sink;
		for (long i = 0; i < Parts * 2000000L; i++)
			x = x * 6364136223846793005u + 1442695040888963407u;
		sink = x;
	}
};
}

int main()
{
	std::puts("ready");
	std::fflush(stdout);
	std::getchar();
	for (int i = 0; i < ROUNDS; i++) {
		work::Share<7>::spin();
		work::Share<3>::spin();
	}
	std::puts("{}");
	std::fflush(stdout);
	while (std::getchar() != EOF)
		;
}
