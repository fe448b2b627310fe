/* Code without exceptions: what is thrown through it ends the run. */
int through(int (*function)(int), int x) { return function(x) + 1; }
