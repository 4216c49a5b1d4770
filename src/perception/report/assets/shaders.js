// SPDX-License-Identifier: Apache-2.0
"use strict";
// Shaders of the octree view. Faces come as instances: a lowest voxel, an extent along the two other axes, a class.

const FACE_VERTEX = `#version 300 es
precision highp float;
precision highp int;
layout(location = 0) in uint cornerX;
layout(location = 1) in uint cornerY;
layout(location = 2) in uint cornerZ;
layout(location = 3) in uint extentU;
layout(location = 4) in uint extentV;
layout(location = 5) in uint label;
uniform mat4 clip_T_map;
uniform vec3 origin, eye;
uniform float size, side, pixelAngle;
uniform int axis;
uniform bool cut, byHeight;
uniform vec2 heights;
uniform highp sampler2D palette, scale;
out vec3 voxel;
out float height;
flat out vec3 color;
flat out vec3 normal;
flat out float shade;
flat out uint labelIndex;
flat out vec3 first, last;

void main() {
  vec4 entry = texelFetch(palette, ivec2(int(label & 255u), int(label >> 8)), 0);
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1);
  vec3 low = vec3(cornerX, cornerY, cornerZ);
  // A face grows by half a pixel: neighbors of other sizes would else let the background shine through.
  float away = distance(eye, origin + size * low);
  vec2 plane = corner * vec2(extentU, extentV) + (corner - 0.5) * min(away * pixelAngle / size, 0.5);
  vec2 reach = vec2(extentU, extentV) - 1.0;
  first = low;
  last = low + (axis == 0 ? vec3(0.0, reach) : (axis == 1 ? vec3(reach.x, 0.0, reach.y) : vec3(reach, 0.0)));
  if (axis == 0) { voxel = low + vec3(side, plane); normal = vec3(2.0 * side - 1.0, 0.0, 0.0); }
  else if (axis == 1) { voxel = low + vec3(plane.x, side, plane.y); normal = vec3(0.0, 2.0 * side - 1.0, 0.0); }
  else { voxel = low + vec3(plane, side); normal = vec3(0.0, 0.0, 2.0 * side - 1.0); }
  vec3 position = origin + size * voxel;
  bool front = dot(normal, eye - position) > 0.0;
  color = entry.rgb;
  shade = axis == 2 ? (side > 0.5 ? 1.0 : 0.6) : (axis == 1 ? 0.84 : 0.72);
  // Inner sides show only where a slice has opened a body.
  if (!front) shade *= 0.55;
  labelIndex = label;
  height = position.z;
  gl_Position = clip_T_map * vec4(position, 1.0);
  if (!front) gl_Position.z += 2e-5 * gl_Position.w;
  if (entry.a < 0.5 || (!front && !cut)) gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
}`;

// What lies flat on the lower end of a slice belongs to the voxel below, and a face by as much as it grew to none.
const SLICE = `
bool inSlice() {
  float level = abs(normal.z) > 0.5 ? first.z + 0.5 : clamp(voxel.z, first.z, last.z + 1.0);
  float z = origin.z + size * level;
  return z >= slice.x && z <= slice.y;
}`;

const FACE_COLOR = `#version 300 es
precision highp float;
in vec3 voxel;
in float height;
flat in vec3 color;
flat in vec3 normal, first, last;
flat in float shade;
uniform vec2 slice, heights;
uniform vec3 origin;
uniform float size;
uniform bool byHeight;
uniform highp sampler2D scale;
out vec4 result;
${SLICE}

void main() {
  if (!inSlice()) discard;
  vec2 plane = abs(normal.x) > 0.5 ? voxel.yz : (abs(normal.y) > 0.5 ? voxel.xz : voxel.xy);
  vec2 width = fwidth(plane);
  vec2 edge = abs(fract(plane - 0.5) - 0.5) / max(width, vec2(1e-6));
  float line = (1.0 - min(min(edge.x, edge.y), 1.0)) * smoothstep(0.3, 0.08, max(width.x, width.y));
  vec3 base = color;
  if (byHeight) base = texture(scale, vec2((height - heights.x) / max(heights.y - heights.x, 1e-6), 0.5)).rgb;
  result = vec4(base * shade * (1.0 - 0.28 * line), 1.0);
}`;

const FACE_PICK = `#version 300 es
precision highp float;
precision highp int;
in vec3 voxel;
flat in vec3 normal, first, last;
flat in uint labelIndex;
uniform vec2 slice;
uniform vec3 origin;
uniform float size;
out uvec4 result;
${SLICE}

void main() {
  if (!inSlice()) discard;
  // The half pixel by which a face has grown is no voxel of its own.
  result = uvec4(uvec3(clamp(floor(voxel - 0.5 * normal), first, last)), labelIndex + 1u);
}`;

const PATH_VERTEX = `#version 300 es
precision highp float;
layout(location = 0) in vec3 begin;
layout(location = 1) in vec3 end;
uniform mat4 clip_T_map;
uniform vec2 viewport;
uniform float width, nearer;

void main() {
  vec4 a = clip_T_map * vec4(begin, 1.0), b = clip_T_map * vec4(end, 1.0);
  if (a.w < 0.01 || b.w < 0.01) { gl_Position = vec4(2.0, 2.0, 2.0, 1.0); return; }
  vec2 along = (b.xy / b.w - a.xy / a.w) * viewport;
  along = length(along) > 1e-4 ? normalize(along) : vec2(1.0, 0.0);
  vec4 place = (gl_VertexID & 1) == 0 ? a : b;
  float reach = (gl_VertexID & 1) == 0 ? -0.5 : 0.5;
  float aside = (gl_VertexID >> 1) == 0 ? -0.5 : 0.5;
  vec2 offset = width * (reach * along + aside * vec2(-along.y, along.x)) * 2.0 / viewport;
  gl_Position = vec4(place.xy + offset * place.w, place.z - nearer * place.w, place.w);
}`;

const PATH_COLOR = `#version 300 es
precision highp float;
uniform vec3 color;
out vec4 result;
void main() { result = vec4(color, 1.0); }`;

// Column-major 4x4 matrices, as WebGL takes them.
const Matrix = {
  multiply(a, b) {
    const out = new Float32Array(16);
    for (let column = 0; column < 4; column++)
      for (let row = 0; row < 4; row++)
        for (let k = 0; k < 4; k++) out[4 * column + row] += a[4 * k + row] * b[4 * column + k];
    return out;
  },
  perspective(angle, aspect, near, far) {
    const f = 1 / Math.tan(angle / 2), d = 1 / (near - far);
    return new Float32Array([f / aspect, 0, 0, 0, 0, f, 0, 0, 0, 0, (far + near) * d, -1, 0, 0, 2 * far * near * d, 0]);
  },
  // The camera looks from `eye` along -back; right and up complete its axes.
  view(right, up, back, eye) {
    const dot = (v) => -(v[0] * eye[0] + v[1] * eye[1] + v[2] * eye[2]);
    return new Float32Array([
      right[0], up[0], back[0], 0, right[1], up[1], back[1], 0, right[2], up[2], back[2], 0,
      dot(right), dot(up), dot(back), 1]);
  },
  // Blows one pixel, given in clip coordinates, up to the whole viewport.
  pick(x, y, width, height) {
    return new Float32Array([width, 0, 0, 0, 0, height, 0, 0, 0, 0, 1, 0, -x * width, -y * height, 0, 1]);
  },
};

function compileProgram(gl, vertex, fragment) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  const places = {};
  for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
    const name = gl.getActiveUniform(program, i).name;
    places[name] = gl.getUniformLocation(program, name);
  }
  return { program, places };
}
