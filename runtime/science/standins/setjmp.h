/* Stands for the toolchain's: there is no way back over C frames. What would jump ends the run, in words. */
#ifndef SANDBOX_SETJMP_H
#define SANDBOX_SETJMP_H
typedef int jmp_buf[1];
#define setjmp(buffer) ((void)(buffer), 0)
#ifdef __cplusplus
extern "C" {
#endif
_Noreturn void longjmp(jmp_buf buffer, int value);
#ifdef __cplusplus
}
#endif
#endif
