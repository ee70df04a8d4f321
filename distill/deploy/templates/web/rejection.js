"use strict";
// None of these: whether even the best of the names asked for is too far from a picture.

function isNone(classes, cosines) {
  return Math.max(...cosines) < state.model.reject.threshold;
}
