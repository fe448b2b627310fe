/* C++ that throws, function by function of a number; what goes on is written into a text. */
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

static std::string said;

extern "C" int through(int (*function)(int), int x); /* plain.c */

struct Local {
    const char *name;
    ~Local() { said += "~", said += name; }
};
struct A { int a = 5; virtual ~A() {} };
struct B { int b = 6; virtual ~B() {} };
struct C : A, B { int c = 7; };

__attribute__((noinline)) static int thrower(int x)
{
    Local local{"t"};
    switch (x) {
    case 1: throw 1;
    case 2: throw std::runtime_error("two");
    case 3: throw "text";
    case 4: throw C();
    case 5: throw std::make_shared<int>(3);
    case 6: throw std::bad_alloc();
    case 7: throw new C;
    default: return x + 1;
    }
}

__attribute__((noinline)) static int middle(int x)
{
    Local local{"m"};
    return thrower(x) + 100;
}

static int catches(int x)
{
    try { return middle(x); }
    catch (int i) { said += "int"; return i; }
    catch (const std::runtime_error &e) { said += e.what(); return 2; }
    catch (const char *t) { said += t; return 3; }
    catch (B &b) { said += "B"; return b.b; }
    catch (B *b) { said += "B*"; int r = b->b; delete b; return r; }
    catch (std::shared_ptr<int> p) { said += "ptr"; return *p; }
    catch (...) { said += "any"; return -1; }
}

static int throws_again(int x)
{
    try {
        try { return middle(x); }
        catch (...) { said += "<"; throw; }
    }
    catch (int i) { said += "int"; return i; }
    catch (std::exception &e) { said += e.what(); return 9; }
    catch (...) { said += ">"; return 8; }
}

static int nests(int x)
{
    try {
        try { middle(x); }
        catch (int) {
            Local local{"n"};
            try { middle(2); }
            catch (std::exception &e) { said += "in"; throw std::logic_error("inner"); }
        }
    }
    catch (std::logic_error &e) { said += e.what(); return 1; }
    catch (std::runtime_error &e) { said += "rt"; return 4; }
    catch (...) { return 2; }
    return 3;
}

static int keeps(int x)
{
    std::exception_ptr kept;
    try { middle(x); }
    catch (...) {
        kept = std::current_exception();
        try { std::rethrow_exception(kept); }
        catch (std::exception &e) { said += "["; said += e.what(); said += "]"; }
        catch (...) { said += "[?]"; }
    }
    if (!kept) return std::uncaught_exceptions();
    for (int i = 0; i < 2; i++)
        try { std::rethrow_exception(kept); }
        catch (std::exception &e) { said += e.what(); }
        catch (int) { said += "i"; }
        catch (...) { said += "?"; }
    try { std::rethrow_exception(std::make_exception_ptr(std::domain_error("made"))); }
    catch (std::logic_error &e) { said += e.what(); }
    return 5;
}

struct Runs { virtual ~Runs() {} virtual int run(int x) = 0; };
struct Throws : Runs {
    int run(int x) override
    {
        Local local{"v"};
        if (x > 2) throw std::out_of_range("v");
        return x;
    }
};

static int virtuals(int x)
{
    Throws throws;
    Runs *runs = &throws;
    std::function<int(int)> function = [runs](int y) { Local local{"l"}; return runs->run(y) * 2; };
    try { return function(x); }
    catch (std::out_of_range &e) { said += e.what(); return 77; }
}

static int library(int x)
{
    try {
        std::vector<std::string> texts(x);
        return int(texts.at(2).size() + std::string("abc").substr(x).size());
    }
    catch (std::out_of_range &e) { said += e.what(); return 1; }
}

struct alignas(64) Wide { char bytes[64]; };
static void *volatile kept; /* so that the compiler leaves nothing out */
static int no_memory(int x)
{
    try {
        const size_t size = 0xffff0000u + x;
        if (x & 1) kept = new char[size];
        else kept = new Wide[size / 64];
        return 1;
    }
    catch (std::bad_alloc &e) { said += e.what(); return 2; }
}

struct Reckless { ~Reckless() noexcept(false) { if (!std::uncaught_exceptions()) throw 5; said += "u"; } };
static int in_destructor(int x)
{
    try { Reckless reckless; if (x) throw 6; }
    catch (int i) { return i; }
    return 0;
}

static int in_loops(int x)
{
    int sum = x;
    for (int i = 0; i < 20; i++) {
        try { if (i % 3 == 0) continue; if (i == 17) break; sum += thrower(i % 3); }
        catch (int) { sum += 100; }
        catch (...) { sum += 1000; continue; }
        sum++;
    }
    return sum;
}

__attribute__((noinline)) static long long wide(int x) { if (x == 1) throw 3.5; return 1LL << 40; }
__attribute__((noinline)) static double real(int x) { if (x == 2) throw 2.5f; return 1.5; }
static int values(int x)
{
    try { return int(wide(x) >> 38) + int(real(x)); }
    catch (double d) { return int(d * 2); }
    catch (float f) { return int(f * 4); }
}

static int through_plain(int x)
{
    try { return through(middle, x); }
    catch (...) { return -1; }
}

static int promises(int x) noexcept { return middle(x); }

static int (*const functions[])(int) = {catches, throws_again, nests, keeps, virtuals, library, no_memory, in_destructor,
                                        in_loops, values, through_plain, promises};

extern "C" {
__attribute__((export_name("run"))) int run(int function, int x) { return functions[function](x); }
__attribute__((export_name("leave"))) int leave(int x) { return middle(x); }
__attribute__((export_name("said"))) const char *what_was_said(void) { return said.c_str(); }
}
