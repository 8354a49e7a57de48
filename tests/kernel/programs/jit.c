/* What a JIT does: writes machine code into anonymous memory, says its name in /tmp/perf-PID.map, and runs it. x86-64. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* push rbp; mov rbp, rsp; mov ecx, edi; 1: dec ecx; jnz 1b; pop rbp; ret */
static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0x89, 0xf9, 0xff, 0xc9, 0x75, 0xfc, 0x5d, 0xc3};

int main(void)
{
    char path[64], byte;
    struct timespec now;
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(memory, code, sizeof(code));
    snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
    FILE *map = fopen(path, "w");
    fprintf(map, "%lx %zx Shop.sell:(int)\n", (unsigned long)memory, sizeof(code));
    fclose(map);
    printf("ready\n");
    fflush(stdout);
    if (read(0, &byte, 1) != 1)
        return 2;
    do {
        ((void (*)(int))memory)(1000000);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    } while (now.tv_sec * 1000 + now.tv_nsec / 1000000 < 400);
    printf("{}\n");
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
    unlink(path);
    return 0;
}
