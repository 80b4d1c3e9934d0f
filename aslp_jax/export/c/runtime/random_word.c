static uint32_t rotate(uint32_t word, int32_t by)
{
    return word << by | word >> (32 - by);
}

/* The word of JAX's generator at an index: Threefry-2x32 of 20 rounds, of which the two
   words are combined (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
   3"). */
static uint32_t random_word(const uint32_t key[2], uint32_t index)
{
    static const uint8_t rotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
    const uint32_t keys[3] = {key[0], key[1], key[0] ^ key[1] ^ 0x1BD11BDAu};
    uint32_t first = keys[0], second = index + keys[1];
    for (uint32_t group = 0; group < 5; group++) {
        for (int32_t round = 0; round < 4; round++) {
            first += second;
            second = rotate(second, rotations[group % 2][round]) ^ first;
        }
        first += keys[(group + 1) % 3];
        second += keys[(group + 2) % 3] + group + 1;
    }
    return first ^ second;
}
