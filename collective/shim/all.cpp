// One translation unit: torch's headers cost far more than our lines, and are read once this way.
#include "group.cpp"
#include "reducer.cpp"
#include "store.cpp"
#include "tensors.cpp"
#ifdef USE_C10D_NCCL
#include "cuda.cpp"
#include "nccl.cpp"
#endif
