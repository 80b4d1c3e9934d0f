/* Integers of each kind that lie between layers: bytes, signed or not, or int16_t. */
enum { KIND_UINT8, KIND_INT8, KIND_INT16 };

/* Step from exact integers to those of the next value, by a fixed-point multiplier. An
   array is a null pointer where all channels have the same number. */
struct requantization {
    int64_t offset; /* holds the bias, and one half of 2^shift for rounding */
    const int64_t *offsets;
    const int32_t *multipliers;
    int32_t multiplier;
    int32_t low, high; /* of the result */
    uint8_t kind;      /* of the result */
    uint8_t shift;
};

static void put(uint8_t kind, void *numbers, int32_t index, int32_t value)
{
    (void)kind;
#if HAS_INT16
    if (kind == KIND_INT16) {
        ((int16_t *)numbers)[index] = (int16_t)value;
        return;
    }
#endif
    /* Also an int8_t, whose byte is its value modulo 256. */
    ((uint8_t *)numbers)[index] = (uint8_t)value;
}
