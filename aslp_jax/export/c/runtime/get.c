static int32_t get(uint8_t kind, const void *numbers, int32_t index)
{
    (void)kind;
#if HAS_INT16
    if (kind == KIND_INT16) {
        return ((const int16_t *)numbers)[index];
    }
#endif
#if HAS_INT8
    if (kind == KIND_INT8) {
        return ((const int8_t *)numbers)[index];
    }
#endif
    return ((const uint8_t *)numbers)[index];
}
