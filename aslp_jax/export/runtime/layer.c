/* A layer sums a window of its input for each unit, then scales, shifts, cuts off what
   is negative and takes the maximum of 2x2 windows, as its fields say. Values lie in
   memory channel by channel, row by row. */

struct layer {
    int32_t in_channels, in_height, in_width;
    int32_t units, height, width; /* of the sums, before 2x2 windows are taken */
    int32_t kernel_height, kernel_width;
    int32_t stride, padding;
    uint8_t dense; /* the kernel covers the whole input */
    uint8_t relu, pool;
    float scale;         /* of all units, where `scales` is a null pointer */
    const float *scales; /* of each unit */
    const float *shifts; /* of each unit, or a null pointer for 0 */
    struct weights weights;
};

/* Of one axis, the outputs whose input at some offset is inside. */
struct range {
    int32_t from, to;
};

static struct range inside(int32_t outputs, int32_t inputs, int32_t offset,
                           int32_t stride)
{
    struct range range = {0, 0};
    if (offset < 0) {
        range.from = (-offset + stride - 1) / stride;
    }
    if (inputs > offset) {
        range.to = (inputs - 1 - offset) / stride + 1;
    }
    if (range.to > outputs) {
        range.to = outputs;
    }
    return range;
}
