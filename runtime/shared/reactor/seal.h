/* What seal.c and reactor.c know of each other. */
#pragma once

void sandbox_reserve_nursery(void);       /* seal.c: first thing at start-up */
void sandbox_reset_exit_functions(void);  /* reactor.c */
