"use strict";

/**
 * The `count` rows most similar to a unit vector, best first: [{row, similarity}]. Every row is
 * compared; of equal ones the first leads.
 *
 * numbers: whole ones from -127 to 127, row by row; steps: what one of them stands for, a row each.
 */
function nearest(query, numbers, steps, count) {
  const found = [];
  for (let row = 0, place = 0; row < steps.length; row++) {
    let sum = 0;
    for (let i = 0; i < query.length; i++) sum += query[i] * numbers[place++];
    const similarity = sum * steps[row];
    if (found.length === count && similarity <= found[count - 1].similarity) continue;
    const behind = found.findIndex((hit) => hit.similarity < similarity);
    found.splice(behind < 0 ? found.length : behind, 0, { row, similarity });
    found.length = Math.min(found.length, count);
  }
  return found;
}
