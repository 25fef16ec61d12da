// One translation unit: torch's headers cost far more than our lines, and are read once this way.
#include "cuda.cpp"
#include "fused.cpp"
#include "group.cpp"
#include "lists.cpp"
#include "profile.cpp"
#include "recompute.cpp"
#include "reducer.cpp"
#include "settings.cpp"
#include "store.cpp"
#ifdef USE_C10D_NCCL
#include "gpu.cpp"
#include "nccl.cpp"
#endif
