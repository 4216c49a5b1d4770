// SPDX-License-Identifier: Apache-2.0
"use strict";
// The semantic octree, turning in the page: classes on and off, a slice of heights, the voxel under the pointer.

const FIELD_OF_VIEW = 0.7;

class OctreeCanvas {
  // Draws one map on a canvas; knows no other element of the page.
  constructor(canvas) {
    this.canvas = canvas;
    const gl = (this.gl = canvas.getContext("webgl2", { antialias: true, powerPreference: "low-power" }));
    if (!gl) throw new Error("This browser offers no WebGL 2, which the three-dimensional view needs.");
    this.faces = compileProgram(gl, FACE_VERTEX, FACE_COLOR);
    this.picking = compileProgram(gl, FACE_VERTEX, FACE_PICK);
    this.pathProgram = compileProgram(gl, PATH_VERTEX, PATH_COLOR);
    this.scale = gl.createTexture();
    this.palette = gl.createTexture();
    this.target = this.makePickTarget();
    this.camera = { azimuth: -1, elevation: 0.6, distance: 5, center: [0, 0, 0] };
    this.slice = [-Infinity, Infinity];
    this.byHeight = false;
    this.showPath = true;
    this.map = null;
    this.waiting = false;
    new ResizeObserver(() => this.redraw()).observe(canvas);
  }

  makePickTarget() {
    const gl = this.gl, frame = gl.createFramebuffer(), color = gl.createRenderbuffer(), depth = gl.createRenderbuffer();
    gl.bindRenderbuffer(gl.RENDERBUFFER, color);
    gl.renderbufferStorage(gl.RENDERBUFFER, gl.RGBA32UI, 1, 1);
    gl.bindRenderbuffer(gl.RENDERBUFFER, depth);
    gl.renderbufferStorage(gl.RENDERBUFFER, gl.DEPTH_COMPONENT24, 1, 1);
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    gl.framebufferRenderbuffer(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.RENDERBUFFER, color);
    gl.framebufferRenderbuffer(gl.FRAMEBUFFER, gl.DEPTH_ATTACHMENT, gl.RENDERBUFFER, depth);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    return frame;
  }

  // map: what the page says of it; columns: Uint16Array of six columns, one value per face each.
  show(map, columns) {
    const gl = this.gl, count = columns.length / 6;
    this.release();
    this.map = map;
    this.visible = map.palette.map(() => true);
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, columns, gl.STATIC_DRAW);
    this.groups = [];
    let first = 0;
    map.counts.forEach((faces, direction) => {
      const array = gl.createVertexArray();
      gl.bindVertexArray(array);
      for (let column = 0; column < 6; column++) {
        gl.enableVertexAttribArray(column);
        gl.vertexAttribIPointer(column, 1, gl.UNSIGNED_SHORT, 2, 2 * (column * count + first));
        gl.vertexAttribDivisor(column, 1);
      }
      this.groups.push({ array, faces, axis: direction >> 1, side: direction & 1 });
      first += faces;
    });
    this.buffers = [buffer];
    this.loadPath(map.path);
    gl.bindVertexArray(null);
    this.loadPalette();
    this.loadScale(map.height_scale);
    this.resetCamera();
  }

  release() {
    if (!this.map) return;
    for (const group of this.groups) this.gl.deleteVertexArray(group.array);
    for (const buffer of this.buffers) this.gl.deleteBuffer(buffer);
    if (this.path) this.gl.deleteVertexArray(this.path.array);
  }

  loadPath(points) {
    this.path = null;
    if (points.length < 6) return;
    const gl = this.gl, buffer = gl.createBuffer(), array = gl.createVertexArray();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(points), gl.STATIC_DRAW);
    gl.bindVertexArray(array);
    for (const [place, offset] of [[0, 0], [1, 12]]) {
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 12, offset);
      gl.vertexAttribDivisor(place, 1);
    }
    this.path = { array, segments: points.length / 3 - 1 };
    this.buffers.push(buffer);
  }

  loadPalette() {
    const gl = this.gl, rows = Math.max(1, Math.ceil(this.map.palette.length / 256));
    const pixels = new Uint8Array(256 * rows * 4);
    this.map.palette.forEach((entry, i) => pixels.set([...entry.color, this.visible[i] ? 255 : 0], 4 * i));
    gl.bindTexture(gl.TEXTURE_2D, this.palette);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, rows, 0, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    this.redraw();
  }

  loadScale(colors) {
    const gl = this.gl, pixels = new Uint8Array(colors.flatMap((color) => [...color, 255]));
    gl.bindTexture(gl.TEXTURE_2D, this.scale);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, colors.length, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.LINEAR);
    for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, name, gl.CLAMP_TO_EDGE);
  }

  resetCamera() {
    const { focus, azimuth } = this.map, center = focus[0].map((value, i) => (value + focus[1][i]) / 2);
    this.radius = Math.hypot(...focus[0].map((value, i) => focus[1][i] - value)) / 2;
    this.camera = { azimuth, elevation: 0.75, distance: 0, center };
    this.fit();
  }

  // The least distance from which the whole outline is in sight, with its picture in the middle of the canvas.
  fit() {
    const { right, up, back } = this.axes(), { camera, map } = this, lens = Math.tan(FIELD_OF_VIEW / 2);
    const aspect = this.canvas.clientWidth / Math.max(1, this.canvas.clientHeight);
    const along = (axis, point) => axis.reduce((sum, value, i) => sum + value * (point[i] - camera.center[i]), 0);
    const least = () => Math.max(...map.outline.map((point) => along(back, point) +
      1.06 * Math.max(Math.abs(along(right, point)) / aspect, Math.abs(along(up, point))) / lens));
    camera.distance = least();
    // What is near looks larger, so that the middle of the picture is found in a few steps.
    for (let round = 0; round < 6; round++) {
      for (const axis of [right, up]) {
        const seen = map.outline.map((point) => along(axis, point) / (camera.distance - along(back, point)));
        const shift = ((Math.max(...seen) + Math.min(...seen)) / 2) * camera.distance;
        camera.center = camera.center.map((value, i) => value + shift * axis[i]);
      }
      camera.distance = least();
    }
    this.redraw();
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  axes() {
    const { azimuth, elevation } = this.camera;
    const ca = Math.cos(azimuth), sa = Math.sin(azimuth), ce = Math.cos(elevation), se = Math.sin(elevation);
    return { right: [-sa, ca, 0], up: [-ca * se, -sa * se, ce], back: [ca * ce, sa * ce, se] };
  }

  matrix() {
    const { right, up, back } = this.axes(), { distance, center } = this.camera;
    this.eye = center.map((value, i) => value + distance * back[i]);
    const reach = distance + 4 * this.radius;
    const aspect = this.canvas.width / this.canvas.height;
    const lens = Matrix.perspective(FIELD_OF_VIEW, aspect, Math.max(distance / 100, reach / 5000), reach);
    return Matrix.multiply(lens, Matrix.view(right, up, back, this.eye));
  }

  draw() {
    const gl = this.gl, ratio = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.round(this.canvas.clientWidth * ratio), height = Math.round(this.canvas.clientHeight * ratio);
    if (!this.map || !width || !height) return;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const background = cssColor(this.canvas, "--canvas");
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, width, height);
    gl.clearColor(background[0] / 255, background[1] / 255, background[2] / 255, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    const clip_T_map = this.matrix();
    this.drawFaces(this.faces, clip_T_map);
    if (this.path && this.showPath) {
      const { program, places } = this.pathProgram;
      gl.useProgram(program);
      gl.uniformMatrix4fv(places.clip_T_map, false, clip_T_map);
      gl.uniform2f(places.viewport, width, height);
      gl.bindVertexArray(this.path.array);
      for (const [thickness, nearer, name] of [[5 * ratio, 1e-4, "--path-rim"], [3 * ratio, 2e-4, "--path"]]) {
        // The rim of one stretch must not cover the color of the next.
        gl.depthMask(name === "--path");
        gl.uniform1f(places.width, thickness);
        gl.uniform1f(places.nearer, nearer);
        gl.uniform3fv(places.color, cssColor(this.canvas, name).map((value) => value / 255));
        gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.path.segments);
      }
    }
    gl.bindVertexArray(null);
  }

  drawFaces({ program, places }, clip_T_map) {
    const gl = this.gl, { map } = this, rim = 0.02 * map.size;
    gl.useProgram(program);
    gl.uniformMatrix4fv(places.clip_T_map, false, clip_T_map);
    gl.uniform3fv(places.origin, map.origin);
    gl.uniform3fv(places.eye, this.eye);
    gl.uniform1f(places.size, map.size);
    gl.uniform1f(places.pixelAngle, FIELD_OF_VIEW / this.canvas.height);
    // What only touches the slice is not in it.
    const below = this.slice[0] > map.heights[0] + rim, above = this.slice[1] < map.heights[1] - rim;
    gl.uniform2f(places.slice, below ? this.slice[0] + rim : -1e9, above ? this.slice[1] - rim : 1e9);
    gl.uniform1i(places.cut, below || above ? 1 : 0);
    if (places.byHeight) gl.uniform1i(places.byHeight, this.byHeight ? 1 : 0);
    if (places.heights) gl.uniform2fv(places.heights, map.color_heights);
    gl.uniform1i(places.palette, 0);
    if (places.scale) gl.uniform1i(places.scale, 1);
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, this.scale);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.palette);
    for (const group of this.groups) {
      if (!group.faces) continue;
      gl.uniform1i(places.axis, group.axis);
      gl.uniform1f(places.side, group.side);
      gl.bindVertexArray(group.array);
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, group.faces);
    }
  }

  // The voxel under a pixel of the page: {palette: index, position: [x, y, z] of its center, meters}, or null.
  pick(x, y) {
    const gl = this.gl, { clientWidth, clientHeight } = this.canvas, found = new Uint32Array(4);
    if (!this.map || !clientWidth) return null;
    const around = Matrix.pick((2 * x) / clientWidth - 1, 1 - (2 * y) / clientHeight, clientWidth, clientHeight);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.viewport(0, 0, 1, 1);
    gl.clearBufferuiv(gl.COLOR, 0, new Uint32Array(4));
    gl.clearBufferfv(gl.DEPTH, 0, new Float32Array([1]));
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    this.drawFaces(this.picking, Matrix.multiply(around, this.matrix()));
    gl.bindVertexArray(null);
    gl.readPixels(0, 0, 1, 1, gl.RGBA_INTEGER, gl.UNSIGNED_INT, found);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    if (!found[3]) return null;
    const position = this.map.origin.map((value, i) => value + (found[i] + 0.5) * this.map.size);
    return { palette: found[3] - 1, position };
  }

  turn(dx, dy) {
    this.camera.azimuth -= dx;
    this.camera.elevation = Math.min(1.5707, Math.max(-1.5, this.camera.elevation + dy));
    this.redraw();
  }

  move(dx, dy) {
    const { right, up } = this.axes(), step = (2 * this.camera.distance * Math.tan(FIELD_OF_VIEW / 2)) / this.canvas.clientHeight;
    this.camera.center = this.camera.center.map((value, i) => value - step * (dx * right[i] - dy * up[i]));
    this.redraw();
  }

  zoom(factor) {
    const nearest = 4 * this.map.size;
    this.camera.distance = Math.min(20 * this.radius, Math.max(nearest, this.camera.distance * factor));
    this.redraw();
  }
}

// Faces as the page holds them: zlib over base64, low bytes of a column before its high bytes.
async function unpackFaces(text, count) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  if (bytes.length !== 12 * count) throw new Error(`octree: expected ${12 * count} bytes, got ${bytes.length}`);
  const columns = new Uint16Array(6 * count);
  for (let column = 0; column < 6; column++)
    for (let i = 0; i < count; i++) {
      const low = 2 * column * count + i;
      columns[column * count + i] = bytes[low] | (bytes[low + count] << 8);
    }
  return columns;
}

// An opaque color of the style sheet as [r, g, b]; custom properties of this page are written #rrggbb.
function cssColor(element, name) {
  const text = getComputedStyle(element).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16) || 0);
}
