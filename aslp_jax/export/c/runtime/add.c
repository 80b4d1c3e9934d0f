/* Adds two values; `out` may be one of them. */
static void add(const float *one, const float *other, int32_t size, int relu, float *out)
{
    for (int32_t index = 0; index < size; index++) {
        const float sum = one[index] + other[index];
        out[index] = relu && sum < 0 ? 0 : sum;
    }
}
