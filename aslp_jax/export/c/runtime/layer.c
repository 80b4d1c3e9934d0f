/* Where one weight of a kernel meets a channel of the input: it adds to the sums of these
   rows and columns, and the input of the sum at row 0, column 0 would be at `offset`. */
struct tap {
    int32_t offset;
    int32_t top, bottom, left, right; /* bottom and right are the first outside */
};

/* A layer sums a window of its input for each unit. It then makes numbers of the sums,
   and takes the maximum of 2x2 windows, as its fields say. Values lie in memory channel
   by channel, row by row. */
struct layer {
    int32_t channels;    /* of the input that a unit takes: those of its group */
    int32_t in_size;     /* numbers of a channel of the input */
    int32_t units;
#if GROUPED
    int32_t group_units; /* of units that take the same channels */
#endif
    int32_t height, width; /* of the sums, before 2x2 windows are taken */
    int32_t kernel_size;   /* weights of a unit for each channel */
    int32_t row_step, step; /* in the input, from one sum to that below or beside it */
    uint8_t dense; /* the kernel covers the whole input */
    uint8_t pool;
#if INTEGERS
    struct requantization requantization;
#else
    uint8_t relu;
    float scale;            /* of all units, where `scales` is a null pointer */
    const float *scales;    /* of each unit */
    const float *shifts;    /* of each unit, or a null pointer for 0 */
#endif
    const struct tap *taps; /* of each weight of a channel, unless `dense` */
    struct weights weights;
};
