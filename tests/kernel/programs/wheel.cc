// Burns CPU in a template of a class in a namespace: a name that must be demangled.
#include <cstdio>
#include <ctime>
#include <unistd.h>

namespace mill {
template <typename T> struct Wheel {
    T value = 1;
    [[gnu::noinline]] void turn(unsigned ms)
    {
        timespec now;
        do {
            for (int i = 0; i < 20000; i++)
                value = value * 3 + 1;
            asm volatile("" ::"r"(value) : "memory");
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
        } while (now.tv_sec * 1000u + now.tv_nsec / 1000000 < ms);
    }
};
} // namespace mill

int main(int, char **)
{
    char byte;
    std::puts("ready");
    std::fflush(stdout);
    if (read(0, &byte, 1) != 1)
        return 2;
    mill::Wheel<unsigned long> wheel;
    wheel.turn(400);
    std::puts("{}");
    std::fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
}
