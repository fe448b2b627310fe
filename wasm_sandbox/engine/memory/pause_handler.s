# The pause handler: a handler of SIGSEGV in which a guest's thread waits. Linux on x86-64.
#
# Problem: a metered guest reads its poll page at every charge, its safepoint. Once the page cannot
# be read, the read raises SIGSEGV, and wasmtime's handler makes a trap of it: the guest ends. A guest
# that is to wait and go on later needs a handler in front of that. It runs between two instructions
# of anything, without the interpreter lock, so it cannot be Python.
#
# Solution: look for a pause word at a fixed distance before the address of the fault. If there is
# one of this process, wait for it with futex(2), and return: the guest repeats its read. Any other
# fault is passed on to the handler that was in place before, as if this one were not there.
#
# Registers: rdi, rsi and rdx are the arguments of a handler (number, siginfo_t *, ucontext_t *; see
# sigaction(2)) and are as they were for the handler before. rax, rcx, r10 and r11 are lost, which a
# C function may do; the kernel restores those of the guest when the handler returns. No vector
# register is touched. The stack is the alternate one, with 24 bytes pushed.
#
# System call: futex(rdi: word, esi: operation, edx: expected value, r10: timeout), number in eax,
# answer in eax; rcx and r11 are lost. It compares and sleeps as one step: no wake-up is missed.
#
# Mark: 8 random bytes of this process, behind every pause word. The address of the fault may be
# anything, and what lies before it may be of a guest's choice; a guest cannot read the mark. It and
# the address of the handler before are written over their placeholders when the code is loaded.
#
# What can still fail:
# - The word is probed and then read. If another thread unmaps it in between, or a filter of system
#   calls refuses futex(2), the read here faults. That fault is passed on (its address is within a
#   page, or has no pause word), and ends the process as a fault of the host does.
# - A word that says GO_ON before a page that cannot be read makes the thread fault for ever: whoever
#   writes GO_ON makes the page readable first.
# - 8 bytes before a fault of the host's own equal the mark by chance: one in 2**64.
# - A debugger sees a SIGSEGV for every pause.
#
# The bytes are in pause_handler_x86_64.py. After a change here, assemble with GNU binutils:
#
#     as pause_handler.s -o pause_handler.o
#     objcopy -O binary -j .text pause_handler.o pause_handler.bin
#     python -c 'print(open("pause_handler.bin", "rb").read().hex())'
#
# tests/engine/memory/test_pause_handler.py does the same, and compares the constants with Python's.

.intel_syntax noprefix

# Of engine/memory/layout.py:
.set WORD_DISTANCE, 0x2010000           # from a pause word to its poll page
.set MARK_OFFSET, 8                     # from a pause word to the mark

# Of engine/memory/pausing.py, the values of a pause word:
.set GO_ON, 0
.set PAUSE, 1
.set STOP, 2

# Of Linux on x86-64:
.set PAGE_BYTES, 4096
.set FAULT_ADDRESS, 16                  # offset of si_addr in siginfo_t
.set SYSTEM_CALL_FUTEX, 202
.set FUTEX_WAIT_PRIVATE, 128
.set EFAULT, 14

# Placeholders:
.set MARK, 0x1111111111111111
.set HANDLER_BEFORE, 0x2222222222222222

    endbr64                             # may be jumped to (control-flow enforcement)
    push rdi
    push rsi
    push rdx

# Is it the first byte of a page, as with every read of a poll page?
    mov rdi, [rsi+FAULT_ADDRESS]
    test edi, PAGE_BYTES-1
    jnz pass_on

# Can the word be read? Asked of the kernel, which answers EFAULT where a read here would fault. With
# a timeout of zero it does not wait: the other answers are ETIMEDOUT and, for other values, EAGAIN.
    sub rdi, WORD_DISTANCE
    mov esi, FUTEX_WAIT_PRIVATE
    mov edx, PAUSE
    lea r10, no_time[rip]
    mov eax, SYSTEM_CALL_FUTEX
    syscall
    cmp eax, -EFAULT
    je pass_on

# Is it a pause word of this process?
    movabs rcx, MARK
    cmp [rdi+MARK_OFFSET], rcx
    jne pass_on

# Wait while it says PAUSE, without a timeout. Woken, interrupted or too late: look again.
    xor r10d, r10d
look:
    mov eax, [rdi]
    cmp eax, edx
    ja pass_on                          # STOP: the handler before makes it a trap
    jb go_on                            # GO_ON
    mov eax, SYSTEM_CALL_FUTEX
    syscall
    jmp look

# Return to the guest, which reads its poll page again.
go_on:
    pop rdx
    pop rsi
    pop rdi
    ret

# Leave everything to the handler before: same arguments, same stack.
pass_on:
    pop rdx
    pop rsi
    pop rdi
    movabs rax, HANDLER_BEFORE
    jmp rax

no_time:                                # struct timespec
    .quad 0, 0

.if GO_ON >= PAUSE || PAUSE >= STOP
    .error "the comparison at look needs GO_ON < PAUSE < STOP"
.endif
