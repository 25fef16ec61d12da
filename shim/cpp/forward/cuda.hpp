// Names of CUDA libraries that ATen's headers mention and the shim never uses: handles that CUDAContextLight.h passes
// on, statuses that Exceptions.h prints. Their real headers come in packages of hundreds of megabytes.
//
// Invariant: nothing here is dereferenced, and no function that takes one of these is called.
#pragma once

typedef struct cusparseContext* cusparseHandle_t;
typedef struct cublasContext* cublasHandle_t;
typedef struct cublasLtContext* cublasLtHandle_t;
typedef struct cusolverDnContext* cusolverDnHandle_t;

enum cublasStatus_t : int;
enum cusparseStatus_t : int;
enum cusolverStatus_t : int;
