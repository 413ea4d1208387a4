/* A driver and a cuBLASLt without a device, for tests of the bindings' ownership and error handling. It keeps books: which handles
 * are alive, and every call that the real libraries would refuse. Nothing is computed; the emulated device does that.
 *
 * FAKE_CUDA_VERSION (13000), FAKE_CUDA_INIT (0), FAKE_CUDA_DEVICES (1), FAKE_CUDA_CC (90) choose what it pretends to be. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int R;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500 };
enum { CONTEXT, MODULE, STREAM, EVENT, GRAPH, EXEC, DEVICE_MEMORY, PINNED, REGISTERED, LT, DESCRIPTOR, LAYOUT, PREFERENCE, KINDS };

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static struct { void *handle; int kind; } live[4096];
static int live_count, retained, violations;
static char last_violation[256];
static unsigned long next_handle = 0x1000;
static __thread void *stack[16];
static __thread int depth;
static void *const primary = (void *)0xC0;

static int setting(const char *name, int otherwise) { const char *v = getenv(name); return v && *v ? atoi(v) : otherwise; }

static R violation(const char *what, R result) {
    pthread_mutex_lock(&gate);
    violations++;
    snprintf(last_violation, sizeof last_violation, "%s", what);
    pthread_mutex_unlock(&gate);
    return result;
}

static void *current(void) { return depth ? stack[depth - 1] : 0; }

static void add(void *handle, int kind) {
    pthread_mutex_lock(&gate);
    live[live_count].handle = handle;
    live[live_count++].kind = kind;
    pthread_mutex_unlock(&gate);
}

static R create(void **out, int kind, int needs_context) {
    if (needs_context && (!current() || !retained)) return violation("created without a current context", INVALID_CONTEXT);
    *out = (void *)__sync_fetch_and_add(&next_handle, 0x100);
    add(*out, kind);
    return OK;
}

static R destroy(void *handle, int kind, int needs_context, const char *what) {
    int i;
    if (needs_context && (!current() || !retained)) return violation(what, INVALID_CONTEXT);
    pthread_mutex_lock(&gate);
    for (i = 0; i < live_count && (live[i].handle != handle || live[i].kind != kind); i++) {}
    if (i < live_count) live[i] = live[--live_count]; else i = -1;
    pthread_mutex_unlock(&gate);
    return i < 0 ? violation(what, INVALID_HANDLE) : OK;
}

int fake_live(int kind) {
    int i, n = 0;
    pthread_mutex_lock(&gate);
    for (i = 0; i < live_count; i++) n += live[i].kind == kind;
    pthread_mutex_unlock(&gate);
    return kind == CONTEXT ? retained : n;
}
int fake_violations(void) { return violations; }
const char *fake_last_violation(void) { return last_violation; }

R cuInit(unsigned flags) { return flags ? INVALID_VALUE : setting("FAKE_CUDA_INIT", 0); }
/* The real NVRTC opens libcuda.so.1 by itself when it compiles, and calls this without looking whether it is there. */
R cuGetExportTable(const void **table, const void *id) { (void)id; *table = 0; return NOT_FOUND; }
R cuDriverGetVersion(int *v) { *v = setting("FAKE_CUDA_VERSION", 13000); return OK; }
R cuGetErrorName(R e, const char **s) { *s = e == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : e == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT" : 0; return *s ? OK : INVALID_VALUE; }
R cuGetErrorString(R e, const char **s) { *s = e == OUT_OF_MEMORY ? "out of memory" : e == INVALID_CONTEXT ? "invalid device context" : 0; return *s ? OK : INVALID_VALUE; }
R cuDeviceGetCount(int *n) { *n = setting("FAKE_CUDA_DEVICES", 1); return OK; }
R cuDeviceGet(int *d, int i) { if (i < 0 || i >= setting("FAKE_CUDA_DEVICES", 1)) return INVALID_DEVICE; *d = i; return OK; }
R cuDeviceGetName(char *s, int n, int d) { snprintf(s, (size_t)n, "Fake GPU %d", d); return OK; }
R cuDeviceTotalMem_v2(size_t *n, int d) { (void)d; *n = 8ul << 30; return OK; }
R cuDeviceGetUuid_v2(unsigned char *u, int d) { (void)d; for (int i = 0; i < 16; i++) u[i] = (unsigned char)(i * 17); return OK; }
R cuDeviceGetAttribute(int *v, int a, int d) {
    (void)d;
    int cc = setting("FAKE_CUDA_CC", 90);
    *v = a == 75 ? cc / 10 : a == 76 ? cc % 10 : a == 16 ? 132 : a == 97 ? 232448 : 1;
    return OK;
}
R cuDevicePrimaryCtxRetain(void **c, int d) { (void)d; __sync_add_and_fetch(&retained, 1); *c = primary; return OK; }
R cuDevicePrimaryCtxRelease_v2(int d) { (void)d; return retained > 0 ? (__sync_sub_and_fetch(&retained, 1), OK) : violation("context released too often", INVALID_CONTEXT); }
R cuDevicePrimaryCtxSetFlags_v2(int d, unsigned f) { (void)d; (void)f; return OK; }
R cuCtxSetCurrent(void *c) { if (!depth) depth = 1; stack[depth - 1] = c; if (!c) depth--; return OK; }
R cuCtxGetCurrent(void **c) { *c = current(); return OK; }
R cuCtxPushCurrent_v2(void *c) { stack[depth++] = c; return OK; }
R cuCtxPopCurrent_v2(void **c) { if (!depth) return INVALID_CONTEXT; *c = stack[--depth]; return OK; }
R cuCtxSynchronize(void) { return current() ? OK : INVALID_CONTEXT; }
R cuModuleLoadDataEx(void **m, const void *image, unsigned n, int *options, void **values) {
    if (memcmp(image, "bad", 3) == 0) {
        for (unsigned i = 0; i < n; i++) if (options[i] == 5) strcpy(values[i], "ptxas fatal: line 1");
        return 218;
    }
    return create(m, MODULE, 1);
}
R cuModuleUnload(void *m) { return destroy(m, MODULE, 1, "module"); }
R cuModuleGetFunction(void **f, void *m, const char *name) { (void)m; if (!strcmp(name, "missing")) return NOT_FOUND; *f = (void *)0xF00; return OK; }
R cuFuncGetAttribute(int *v, int a, void *f) { (void)f; *v = a; return OK; }
R cuFuncSetAttribute(void *f, int a, int v) { (void)f; (void)a; return v > 232448 ? INVALID_VALUE : OK; }
static unsigned long long seen[16];
R cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *s, void **p, void **e) {
    (void)f; (void)gy; (void)gz; (void)by; (void)bz; (void)shared; (void)s; (void)e;
    if (bx > 1024) return INVALID_VALUE;
    for (unsigned i = 0; i < gx && i < 16; i++) seen[i] = *(unsigned long long *)p[i]; /* as many arguments as blocks along x */
    return OK;
}
unsigned long long fake_argument(int i) { return seen[i]; }
R cuMemAlloc_v2(unsigned long long *p, size_t n) {
    if (n > 8ul << 30) return OUT_OF_MEMORY;
    void *h; R r = create(&h, DEVICE_MEMORY, 1); *p = (unsigned long long)h; return r;
}
R cuMemFree_v2(unsigned long long p) { return destroy((void *)p, DEVICE_MEMORY, 1, "device memory"); }
R cuMemGetInfo_v2(size_t *f, size_t *t) { *f = 7ul << 30; *t = 8ul << 30; return current() ? OK : INVALID_CONTEXT; }
R cuMemHostAlloc(void **p, size_t n, unsigned f) { (void)f; if (!current()) return INVALID_CONTEXT; *p = malloc(n); if (!*p) return OUT_OF_MEMORY; add(*p, PINNED); return OK; }
R cuMemFreeHost(void *p) { R r = destroy(p, PINNED, 1, "pinned memory"); if (!r) free(p); return r; }
R cuMemHostRegister_v2(void *p, size_t n, unsigned f) { (void)n; (void)f; if (!current()) return INVALID_CONTEXT; add(p, REGISTERED); return OK; }
R cuMemHostUnregister(void *p) { return destroy(p, REGISTERED, 1, "registered memory"); }
R cuStreamCreateWithPriority(void **s, unsigned f, int p) { (void)p; return f == 1 ? create(s, STREAM, 1) : INVALID_VALUE; }
R cuStreamDestroy_v2(void *s) { return destroy(s, STREAM, 1, "stream"); }
R cuStreamSynchronize(void *s) { (void)s; return OK; }
R cuStreamQuery(void *s) { (void)s; return 600; }
R cuStreamBeginCapture_v2(void *s, int mode) { (void)s; return mode == 1 ? OK : INVALID_VALUE; }
R cuStreamEndCapture(void *s, void **g) { (void)s; return create(g, GRAPH, 1); }
R cuGraphInstantiateWithFlags(void **e, void *g, unsigned long long f) { (void)g; (void)f; return create(e, EXEC, 1); }
R cuGraphGetNodes(void *g, void **nodes, size_t *n) { (void)g; (void)nodes; *n = 3; return OK; }
R cuGraphExecUpdate_v2(void *e, void *g, int *info) { (void)e; (void)g; info[0] = 2; return 910; }
R cuGraphExecDestroy(void *e) { return destroy(e, EXEC, 1, "graph executable"); }
R cuGraphDestroy(void *g) { return destroy(g, GRAPH, 1, "graph"); }
R cuEventCreate(void **e, unsigned f) { (void)f; return create(e, EVENT, 1); }
R cuEventDestroy_v2(void *e) { return destroy(e, EVENT, 1, "event"); }
R cuEventRecord(void *e, void *s) { (void)e; (void)s; return 700; }

size_t cublasLtGetVersion(void) { return 130100; }
const char *cublasLtGetStatusString(R r) { return r == 15 ? "CUBLAS_STATUS_NOT_SUPPORTED" : r == 7 ? "CUBLAS_STATUS_INVALID_VALUE" : "CUBLAS_STATUS_?"; }
R cublasLtCreate(void **h) { return create(h, LT, 0); }
R cublasLtDestroy(void *h) { return destroy(h, LT, 0, "cublasLt handle"); }
R cublasLtMatmulDescCreate(void **h, int compute, int scale) { return compute == 68 && scale == 0 ? create(h, DESCRIPTOR, 0) : 15; }
R cublasLtMatmulDescDestroy(void *h) { return destroy(h, DESCRIPTOR, 0, "descriptor"); }
R cublasLtMatmulDescSetAttribute(void *h, int a, const void *v, size_t n) { (void)h; (void)v; return n == (a == 8 ? 8u : 4u) ? OK : 7; }
R cublasLtMatrixLayoutCreate(void **h, int type, unsigned long long r, unsigned long long c, long long ld) { (void)type; (void)c; return ld >= (long long)r ? create(h, LAYOUT, 0) : 7; }
R cublasLtMatrixLayoutDestroy(void *h) { return destroy(h, LAYOUT, 0, "layout"); }
R cublasLtMatrixLayoutSetAttribute(void *h, int a, const void *v, size_t n) { (void)h; (void)a; (void)v; return n == 4 || n == 8 ? OK : 7; }
R cublasLtMatmulPreferenceCreate(void **h) { return create(h, PREFERENCE, 0); }
R cublasLtMatmulPreferenceDestroy(void *h) { return destroy(h, PREFERENCE, 0, "preference"); }
R cublasLtMatmulPreferenceSetAttribute(void *h, int a, const void *v, size_t n) { (void)h; (void)v; return n == (a == 1 ? 8u : 4u) ? OK : 7; }
R cublasLtMatmulAlgoGetHeuristic(void *l, void *d, void *a, void *b, void *c, void *dd, void *p, int n, void *results, int *returned) {
    (void)l; (void)d; (void)a; (void)b; (void)c; (void)dd; (void)p; (void)n; (void)results;
    *returned = 0;
    return 15;
}
