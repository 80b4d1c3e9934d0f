/* Of one unit. */
static int32_t sums[SUMS];

#if PARTIAL_SUMS
/* Of up to 128 signed bytes or bytes, which fit into 16 bits: many processors add more of
   these at once. */
typedef int16_t partial_sum;
static partial_sum partial_sums[SUMS];
static int32_t added; /* weights that are in the partial sums */

/* Moves the partial sums into the sums. */
static void collect(int32_t size)
{
    for (int32_t index = 0; index < size; index++) {
        sums[index] += partial_sums[index];
        partial_sums[index] = 0;
    }
    added = 0;
}
#else
typedef int32_t partial_sum;
static partial_sum *const partial_sums = sums;
#endif

#ifdef __cplusplus
#define RESTRICT /* a word of C alone */
#else
#define RESTRICT restrict
#endif

/* Compilers that have vectors use them for plain loops alone; all others gain a lot where
   a loop takes four steps at once. */
#if defined(__SSE2__) || defined(__ARM_NEON) || defined(__ALTIVEC__)
#define UNROLLED 0
#else
#define UNROLLED 1
#endif
