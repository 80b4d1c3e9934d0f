/* Cuts off `shift` binary places, towards minus infinity on every compiler. */
static int32_t requantize(const struct requantization *step, int64_t product)
{
    const uint8_t shift = step->shift;
    const int64_t value = product < 0 ? ~(~product >> shift) : product >> shift;
    return value < step->low    ? step->low
           : value > step->high ? step->high
                                : (int32_t)value;
}
