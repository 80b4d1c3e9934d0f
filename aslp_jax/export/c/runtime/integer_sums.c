/* Of one unit. */
static int32_t sums[SUMS];

#ifdef __cplusplus
#define RESTRICT /* a word of C alone */
#else
#define RESTRICT restrict
#endif
