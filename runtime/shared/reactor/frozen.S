    .section .rodata.sandbox_frozen,"",@
    .globl sandbox_frozen
    .p2align 4
sandbox_frozen:
    .incbin "frozen.bin"
    .size sandbox_frozen, . - sandbox_frozen
