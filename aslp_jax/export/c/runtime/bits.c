/* Bits one after another, the lowest of each byte first. Three more bytes follow. */
struct bits {
    const uint8_t *byte;
    uint32_t next;
};
